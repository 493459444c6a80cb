// Masks as pixels: run lengths to a map of indices, and that onto a canvas.

/** Alpha of what is not the isolated region. */
const DIMMED = 190;

/** Run lengths of COCO's compressed form (see pycocotools' rleFrString). */
function decodeCounts(text) {
  const counts = [];
  for (let at = 0; at < text.length;) {
    let value = 0;
    let shift = 0;
    let group;
    do {
      group = text.charCodeAt(at++) - 48;
      value |= (group & 31) << shift;
      shift += 5;
    } while (group & 32 && at < text.length);
    if (group & 16) value |= -1 << shift;
    if (counts.length > 2) value += counts[counts.length - 2];
    counts.push(value);
  }
  return counts;
}

/** Which region each pixel belongs to, row by row: positions in `regions`. */
export function indexMap({ width, height, regions }) {
  const map = new Uint16Array(width * height);
  regions.forEach((region, index) => {
    let position = 0;
    let inside = false;
    for (const run of decodeCounts(region.segmentation.counts)) {
      if (inside) {
        // Runs go down the columns.
        let x = Math.floor(position / height);
        let y = position % height;
        for (let left = run; left > 0; left--) {
          map[y * width + x] = index;
          if (++y === height) {
            y = 0;
            x++;
          }
        }
      }
      position += run;
      inside = !inside;
    }
  });
  return map;
}

/**
 * Paints regions in their colours, thin lines between them. The background stays clear. With
 * `isolated`, the position of a region, everything else is dimmed and that region stays clear.
 */
export function paintRegions(canvas, map, { width, height, regions }, isolated) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d');
  const image = context.createImageData(width, height);
  // One word a pixel: several times faster than four bytes.
  const pixels = new Uint32Array(image.data.buffer);
  const edge = word([255, 255, 255], 230);
  const words = regions.map(({ colour, index }, position) => {
    if (isolated !== null) return position === isolated ? 0 : word([0, 0, 0], DIMMED);
    return index === 0 ? 0 : word(colour, 255);
  });
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const region = map[at];
      const isEdge = (x + 1 < width && map[at + 1] !== region)
        || (y + 1 < height && map[at + width] !== region);
      pixels[at] = isEdge ? edge : words[region];
    }
  }
  context.putImageData(image, 0, 0);
}

/** A pixel as the machine stores it: every one that runs a browser today is little-endian. */
function word([r, g, b], a) {
  return ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

/** Paints a picture over the photo. */
export function paintPicture(canvas, bitmap) {
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext('2d').drawImage(bitmap, 0, 0);
}
