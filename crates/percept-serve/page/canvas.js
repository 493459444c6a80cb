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

/** Where each of `out` pixels lies among `cells`: bilinear, as the service scales its maps. */
function taps(cells, out) {
  return Array.from({ length: out }, (_, i) => {
    const at = Math.max(0, (i + 0.5) * cells / out - 0.5);
    const low = Math.min(cells - 1, Math.floor(at));
    return { low, high: Math.min(cells - 1, low + 1), part: at - low };
  });
}

/** Similarities of patches as one value a pixel, row by row. */
export function heatValues({ rows, columns, values }, width, height) {
  const across = taps(columns, width);
  const out = new Float32Array(width * height);
  taps(rows, height).forEach(({ low, high, part }, y) => {
    const [top, bottom] = [low * columns, high * columns];
    for (let x = 0; x < width; x++) {
      const { low: left, high: right, part: share } = across[x];
      const above = values[top + left] * (1 - share) + values[top + right] * share;
      const below = values[bottom + left] * (1 - share) + values[bottom + right] * share;
      out[y * width + x] = above * (1 - part) + below * part;
    }
  });
  return out;
}

/** Paints values in the colours of a scale, which is the same for all photos and labels. */
export function paintHeat(canvas, values, width, height, { scale: [low, high], colours }) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d');
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const words = colours.map((colour) => word(colour, 255));
  const last = words.length - 1;
  for (let at = 0; at < pixels.length; at++) {
    const step = Math.round((values[at] - low) / (high - low) * last);
    pixels[at] = words[Math.min(last, Math.max(0, step))];
  }
  context.putImageData(image, 0, 0);
}

/** Paints the bar of a scale: one pixel a colour. */
export function paintScale(canvas, { colours }) {
  paintHeat(canvas, colours.map((_, i) => i), colours.length, 1, { scale: [0, colours.length - 1], colours });
}

/** Bytes of a PNG's signature and header. */
const PNG_HEAD = 33;
/** The text chunk by which percept knows its own results, so that it takes none for a photo. */
const MADE_BY = Uint8Array.from('\0\0\0\x10tEXtSoftware\0percept\x9d\x95\xd9\x86', (c) => c.charCodeAt(0));

/** What is seen: the photo, the map on it, and a bar with its ends and name below. Gives a PNG. */
export async function seen(photo, map, opacity, bar, { label, ends: [low, high] }) {
  const { width, height } = map;
  const text = Math.max(12, Math.round(width / 40));
  const canvas = Object.assign(document.createElement('canvas'), { width, height: height + 2 * text });
  const context = canvas.getContext('2d');
  context.fillStyle = '#fff';
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(photo, 0, 0, width, height);
  context.globalAlpha = opacity;
  context.drawImage(map, 0, 0);
  context.globalAlpha = 1;
  context.imageSmoothingEnabled = false;
  const middle = height + text;
  context.drawImage(bar, width * 0.6, middle - text / 3, width * 0.28, text * 0.66);
  context.fillStyle = '#000';
  context.font = `${text * 0.8}px sans-serif`;
  context.textBaseline = 'middle';
  context.fillText(label, text / 2, middle, width * 0.48);
  context.textAlign = 'right';
  context.fillText(low, width * 0.59, middle);
  context.textAlign = 'left';
  context.fillText(high, width * 0.89, middle, width * 0.1);
  const png = await new Promise((done) => { canvas.toBlob(done, 'image/png'); });
  return new Blob([png.slice(0, PNG_HEAD), MADE_BY, png.slice(PNG_HEAD)], { type: 'image/png' });
}

/** Most pixels of a photo that is made smaller: far more than the model looks at. */
const SHRUNK_PIXELS = 12_000_000;

/** The photo in fewer pixels and bytes, upright. Gives a JPEG `file` and both sizes; null where it fits no canvas. */
export async function shrunk(file) {
  const whole = await createImageBitmap(file).catch(() => null);
  if (!whole) return null;
  const factor = Math.min(1, Math.sqrt(SHRUNK_PIXELS / (whole.width * whole.height)));
  const size = [whole.width, whole.height].map((side) => Math.max(1, Math.round(side * factor)));
  const canvas = Object.assign(document.createElement('canvas'), { width: size[0], height: size[1] });
  const context = canvas.getContext('2d');
  // Transparent pixels lie on white, as on the service.
  context.fillStyle = '#fff';
  context.fillRect(0, 0, ...size);
  context.imageSmoothingQuality = 'high';
  context.drawImage(whole, 0, 0, ...size);
  const before = [whole.width, whole.height];
  whole.close();
  const blob = await new Promise((done) => { canvas.toBlob(done, 'image/jpeg', 0.92); });
  return blob && { file: new File([blob], file.name || 'photo', { type: blob.type }), before, after: size };
}
