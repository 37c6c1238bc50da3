"""Scenes to pixels: signed distances to eight shapes, for all objects of a batch at once, on any device.

An object never leaves its place (World checks that), so each is drawn in a window of its own and the
windows are added up; only + - * / sqrt, min and max are used, which every processor rounds alike.
"""

import torch

from data.shapes.scene import PLACE, SHAPE, SIZE, COLOUR

#               red          orange       yellow       green        cyan         blue         purple       white
PALETTE = ((225, 35, 40), (245, 140, 20), (250, 230, 40), (40, 170, 60), (60, 215, 225), (40, 70, 230), (160, 50, 190), (245, 245, 245))


def circle(x, y):
    return (x * x + y * y).sqrt() - 0.95


def square(x, y):
    return torch.maximum(x.abs(), y.abs()) - 0.8


def triangle(x, y):
    return torch.maximum(y - 0.65, 0.894 * x.abs() - 0.447 * y - 0.40)


def diamond(x, y):
    return (x.abs() + 0.75 * y.abs()) * 0.8 - 0.6


def cross(x, y):
    bar = torch.maximum(x.abs() - 0.3, y.abs() - 0.95)
    return torch.minimum(bar, torch.maximum(y.abs() - 0.3, x.abs() - 0.95))


def ring(x, y):
    return ((x * x + y * y).sqrt() - 0.7).abs() - 0.25


def star(x, y):
    # A five-pointed star is the set of points inside at least four of five half-planes, so its distance is
    # the second largest of the five.
    normals = ((0.0, -1.0), (0.9511, -0.3090), (0.5878, 0.8090), (-0.5878, 0.8090), (-0.9511, -0.3090))
    planes = torch.stack([nx * x + ny * y for nx, ny in normals]) - 0.305
    return planes.topk(2, dim=0).values[1]


def heart(x, y):
    # Two lobes on a square that stands on its corner.
    lobe = ((x.abs() - 0.42) * (x.abs() - 0.42) + (y + 0.32) * (y + 0.32)).sqrt() - 0.50
    return torch.minimum(lobe, (x.abs() + (y + 0.02).abs()) * 0.7071 - 0.62)


SIGNED_DISTANCES = (circle, square, triangle, diamond, cross, ring, star, heart)  # in the order of scene.SHAPES


def render(world, scenes, size, device="cpu"):
    """Scenes -> pictures, uint8 (b, 3, size, size). `size` is the side in pixels."""
    objects = torch.as_tensor(scenes.objects, device=device)
    style = torch.as_tensor(scenes.style, dtype=torch.float32, device=device)
    background = torch.as_tensor(scenes.background, dtype=torch.float32, device=device)
    b = len(objects)

    # The backdrop: dark, a little tinted, lighter towards one side.
    line = (torch.arange(size, device=device) + 0.5) / size
    shade = 0.10 + 0.12 * background[:, 0, None, None] + 0.10 * (background[:, 1, None, None] - 0.5) * line[None, :, None]
    tint = 0.9 + 0.2 * torch.stack([background[:, 2], 1 - background[:, 2], background[:, 3]], 1)
    canvas = shade.expand(b, size, size)[:, None] * tint[:, :, None, None]  # (b, 3, size, size)

    # One row for each object that is there: where it stands, how large, which colour.
    scene, slot = (objects[..., SHAPE] > 0).nonzero(as_tuple=True)
    if len(scene) == 0:
        return (canvas * 255 + 0.5).to(torch.uint8)
    noun_phrase = objects[scene, slot]
    place = noun_phrase[:, PLACE] - 1
    encode_patches = style[scene, place]  # (k, 6)
    middle = (torch.stack([place % 3, place // 3], 1) + 0.5) / 3 + (2 * encode_patches[:, :2] - 1) * world.jitter
    radius = torch.where(noun_phrase[:, SIZE] == 2, world.large, world.small) * (0.94 + 0.06 * encode_patches[:, 2])
    colour = torch.tensor(PALETTE, device=device)[noun_phrase[:, COLOUR] - 1] / 255 * (0.9 + 0.1 * encode_patches[:, 3:])

    # Its window: x to the right, y down, one radius is 1; covered = share of the pixel that is inside.
    window = int(2 * world.large * size) + 3
    corner = (middle * size - window / 2).floor().long().clamp(0, size - window)  # (k, 2)
    pixel = corner[:, :, None] + torch.arange(window, device=device)  # (k, 2, window)
    local = ((pixel + 0.5) / size - middle[:, :, None]) / radius[:, None, None]
    x, y = local[:, 0, None, :].expand(-1, window, -1), local[:, 1, :, None].expand(-1, -1, window)
    distance = torch.empty_like(x)
    for k, signed_distance in enumerate(SIGNED_DISTANCES, start=1):
        mine = (noun_phrase[:, SHAPE] == k).nonzero()[:, 0]
        distance[mine] = signed_distance(x[mine], y[mine])
    covered = (0.5 - distance * radius[:, None, None] * size).clamp(0, 1)[:, None]  # (k, 1, window, window)

    # Paint: backdrop + covered * (colour - backdrop). Windows may overlap, covered parts never do.
    rows, columns = pixel[:, 1, :, None], pixel[:, 0, None, :]
    behind = canvas[scene[:, None, None], :, rows, columns].permute(0, 3, 1, 2)
    change = covered * (colour[:, :, None, None] - behind)
    flat = ((scene[:, None, None, None] * 3 + torch.arange(3, device=device)[:, None, None]) * size + rows[:, None]) * size
    canvas = canvas.reshape(-1).index_add(0, (flat + columns[:, None]).reshape(-1), change.reshape(-1))
    return (canvas.clamp(0, 1) * 255 + 0.5).to(torch.uint8).reshape(b, 3, size, size)
