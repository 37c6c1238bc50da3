"""Scenes to pixels: signed distances to eight shapes, for all objects of a batch at once.

An object never leaves its place (World checks that), so each is drawn in a window of its own and
the windows are added up; only + - * / sqrt, min and max are used, which every processor rounds
alike.
"""

import torch

from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE

PALETTE = (  # in the order of COLOURS
    (225, 35, 40),
    (245, 140, 20),
    (250, 230, 40),
    (40, 170, 60),
    (60, 215, 225),
    (40, 70, 230),
    (160, 50, 190),
    (245, 245, 245),
)


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
    # A five-pointed star is the set of points inside at least four of five half-planes, so its
    # distance is the second largest of the five.
    normals = (
        (0.0, -1.0),
        (0.9511, -0.3090),
        (0.5878, 0.8090),
        (-0.5878, 0.8090),
        (-0.9511, -0.3090),
    )
    planes = torch.stack([nx * x + ny * y for nx, ny in normals]) - 0.305
    return planes.topk(2, dim=0).values[1]


def heart(x, y):
    # Two lobes on a square that stands on its corner.
    lobe = ((x.abs() - 0.42) * (x.abs() - 0.42) + (y + 0.32) * (y + 0.32)).sqrt() - 0.50
    return torch.minimum(lobe, (x.abs() + (y + 0.02).abs()) * 0.7071 - 0.62)


SIGNED_DISTANCES = (
    circle,
    square,
    triangle,
    diamond,
    cross,
    ring,
    star,
    heart,
)  # in the order of SHAPES


def render(world, scenes, size, device="cpu"):
    """Scenes -> pictures, uint8 (b, 3, size, size). `size` is the side in pixels."""
    objects = torch.as_tensor(scenes.objects, device=device)
    style = torch.as_tensor(scenes.style, dtype=torch.float32, device=device)
    background = torch.as_tensor(scenes.background, dtype=torch.float32, device=device)
    canvas = draw_background(background, size)  # (b, 3, size, size)
    scene, slot = (objects[..., SHAPE] > 0).nonzero(as_tuple=True)  # (k,): k objects are there
    if len(scene) > 0:
        objects = objects[scene, slot]  # (k, 4)
        middle, radius, colour = geometry(world, objects, style[scene, objects[:, PLACE] - 1])
        pixels = window_pixels(world, middle, size)
        covered = coverage(objects[:, SHAPE], pixels, middle, radius, size)
        canvas = paint(canvas, scene, pixels, covered, colour)
    return (canvas.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def draw_background(background, size):
    """(b, 4) -> (b, 3, size, size): dark, a little tinted, lighter towards one side."""
    line = (torch.arange(size, device=background.device) + 0.5) / size
    brightness, slope, red, blue = background[:, :, None, None].unbind(1)  # (b, 1, 1) each
    shade = 0.10 + 0.12 * brightness + 0.10 * (slope - 0.5) * line[None, :, None]  # (b, size, 1)
    tint = 0.9 + 0.2 * torch.stack([red, 1 - red, blue], 1)  # (b, 3, 1, 1)
    return shade.expand(-1, size, size)[:, None] * tint


def geometry(world, objects, style):
    """Middle (k, 2), radius (k,) and colour (k, 3) of objects (k, 4) with a style (k, 6)."""
    place = objects[:, PLACE] - 1
    offset = (2 * style[:, :2] - 1) * world.jitter
    middle = (torch.stack([place % 3, place // 3], 1) + 0.5) / 3 + offset
    radius = torch.where(objects[:, SIZE] == 2, world.large, world.small)
    colour = torch.tensor(PALETTE, device=objects.device)[objects[:, COLOUR] - 1] / 255
    return middle, radius * (0.94 + 0.06 * style[:, 2]), colour * (0.9 + 0.1 * style[:, 3:])


def window_pixels(world, middle, size):
    """The columns and the rows of the window around each object: (k, 2, window)."""
    window = int(2 * world.large * size) + 3
    corner = (middle * size - window / 2).floor().long().clamp(0, size - window)  # (k, 2)
    return corner[:, :, None] + torch.arange(window, device=middle.device)


def coverage(shape, pixels, middle, radius, size):
    """Which share of each pixel of its window an object covers: (k, 1, window, window)."""
    # x to the right, y down, one radius is 1
    local = ((pixels + 0.5) / size - middle[:, :, None]) / radius[:, None, None]
    window = pixels.shape[2]
    x = local[:, 0, None, :].expand(-1, window, -1)
    y = local[:, 1, :, None].expand(-1, -1, window)
    distance = torch.empty_like(x)
    for value, signed_distance in enumerate(SIGNED_DISTANCES, start=1):
        k = (shape == value).nonzero()[:, 0]
        distance[k] = signed_distance(x[k], y[k])
    return (0.5 - distance * radius[:, None, None] * size).clamp(0, 1)[:, None]


def paint(canvas, scene, pixels, covered, colour):
    """canvas + covered * (colour - canvas). Windows may overlap, what they cover never does."""
    size, channel = canvas.shape[-1], torch.arange(3, device=canvas.device)[:, None, None]
    rows, columns = pixels[:, 1, :, None], pixels[:, 0, None, :]
    behind = canvas[scene[:, None, None], :, rows, columns].permute(0, 3, 1, 2)
    change = covered * (colour[:, :, None, None] - behind)  # (k, 3, window, window)
    # The index of each changed value in the flattened canvas.
    index = ((scene[:, None, None, None] * 3 + channel) * size + rows[:, None]) * size
    index = index + columns[:, None]
    flat = canvas.reshape(-1).index_add(0, index.reshape(-1), change.reshape(-1))
    return flat.reshape(canvas.shape)
