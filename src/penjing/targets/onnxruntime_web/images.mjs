// Makes a model's input of a photo, with the same numbers as penjing.data.prepare, which uses Pillow.

// Returns a photo's pixels as the browser decodes them, upright.
async function pixelsOf(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

// Returns the input of an image of RGBA bytes: values (C, H, W), resized, cropped and normalised as `prepare` says.
function inputOf({ width, height, data }, { mode, resize, crop, mean, std }) {
  const channels = mode === "L" ? 1 : 3;
  let image = { width, height, channels, data: new Uint8Array(width * height * channels) };
  for (let pixel = 0; pixel < width * height; pixel++) {
    const [red, green, blue] = data.subarray(4 * pixel, 4 * pixel + 3);
    if (channels === 1) image.data[pixel] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
    else image.data.set([red, green, blue], 3 * pixel);
  }
  if (resize !== null && Math.min(width, height) !== resize) {
    const scale = resize / Math.min(width, height);
    const size = (length) => Math.max(resize, Math.trunc(length * scale));
    image = resized(image, size(width), size(height));
  }
  const [rows, columns] = crop ?? [image.height, image.width];
  const left = halfToEven((image.width - columns) / 2);
  const top = halfToEven((image.height - rows) / 2);
  const values = new Float32Array(channels * rows * columns);
  for (let channel = 0, place = 0; channel < channels; channel++) {
    const [centre, spread] = [Math.fround(mean[channel]), Math.fround(std[channel])];
    for (let y = top; y < top + rows; y++) {
      for (let x = left; x < left + columns; x++, place++) {
        const inside = x >= 0 && y >= 0 && x < image.width && y < image.height;
        const byte = inside ? image.data[(y * image.width + x) * channels + channel] : 0;
        values[place] = Math.fround(Math.fround(byte / 255) - centre) / spread;
      }
    }
  }
  return { values, shape: [channels, rows, columns] };
}

function halfToEven(number) {
  const floor = Math.floor(number);
  if (number - floor !== 0.5) return Math.round(number);
  return floor % 2 === 0 ? floor : floor + 1;
}

const BITS = 22; // of the weights' fractions, as in Pillow's resampling of bytes

// Scales an image bilinearly, with a wider triangle where it shrinks, to the very bytes that Pillow gives.
function resized(image, width, height) {
  return alongColumns(alongRows(image, width), height);
}

function alongRows({ width, height, channels, data }, size) {
  if (size === width) return { width, height, channels, data };
  const made = new Uint8Array(size * height * channels);
  weights(width, size).forEach(({ first, shares }, x) => {
    for (let y = 0; y < height; y++) {
      for (let channel = 0; channel < channels; channel++) {
        let sum = 1 << (BITS - 1);
        for (let at = 0; at < shares.length; at++) sum += data[(y * width + first + at) * channels + channel] * shares[at];
        made[(y * size + x) * channels + channel] = clipped(sum);
      }
    }
  });
  return { width: size, height, channels, data: made };
}

function alongColumns({ width, height, channels, data }, size) {
  if (size === height) return { width, height, channels, data };
  const row = width * channels;
  const made = new Uint8Array(row * size);
  weights(height, size).forEach(({ first, shares }, y) => {
    for (let place = 0; place < row; place++) {
      let sum = 1 << (BITS - 1);
      for (let at = 0; at < shares.length; at++) sum += data[(first + at) * row + place] * shares[at];
      made[y * row + place] = clipped(sum);
    }
  });
  return { width, height: size, channels, data: made };
}

function clipped(sum) {
  return Math.min(255, Math.max(0, sum >> BITS));
}

// Returns, for each place of the new size, which places of the old one make it, and the share of each in 1 / 2^22.
function weights(before, after) {
  const scale = before / after;
  const support = Math.max(1, scale);
  return Array.from({ length: after }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(before, Math.trunc(centre + support + 0.5));
    const heights = Array.from({ length: last - first }, (_, at) =>
      Math.max(0, 1 - Math.abs((at + first - centre + 0.5) / support)),
    );
    const sum = heights.reduce((a, b) => a + b, 0);
    return { first, shares: heights.map((height) => Math.trunc(0.5 + (height / sum) * 2 ** BITS)) };
  });
}
