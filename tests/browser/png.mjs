// Makes a screenshot smaller: at most 256 colors, which are enough for text and flat surfaces.

import zlib from 'node:zlib';

const SIGNATURE = Buffer.from('89504e470d0a1a0a', 'hex');

function* chunks(png) {
  for (let at = SIGNATURE.length; at < png.length; ) {
    const length = png.readUInt32BE(at);
    yield { type: png.toString('latin1', at + 4, at + 8), data: png.subarray(at + 8, at + 8 + length) };
    at += length + 12;
  }
}

/// The bytes of 8-bit samples without the filters of their lines.
function unfiltered(lines, width, height, channels) {
  const stride = width * channels;
  const pixels = Buffer.alloc(stride * height);
  for (let y = 0; y < height; y++) {
    const filter = lines[y * (stride + 1)];
    for (let x = 0; x < stride; x++) {
      const at = y * stride + x;
      const left = x < channels ? 0 : pixels[at - channels];
      const up = y === 0 ? 0 : pixels[at - stride];
      const corner = x < channels || y === 0 ? 0 : pixels[at - stride - channels];
      const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
      const paeth = a <= b && a <= c ? left : b <= c ? up : corner;
      pixels[at] = lines[at + y + 1] + [0, left, up, (left + up) >> 1, paeth][filter];
    }
  }
  return pixels;
}

/// At most 256 colors, the most frequent ones, and the number of each pixel's.
function palette(pixels, channels) {
  const counts = new Map();
  const count = pixels.length / channels;
  for (let at = 0; at < count; at++) {
    const color = pixels.readUIntBE(at * channels, 3);
    counts.set(color, (counts.get(color) ?? 0) + 1);
  }
  const colors = [...counts].sort(([, a], [, b]) => b - a).slice(0, 256).map(([color]) => color);
  const parts = color => [color >> 16, (color >> 8) & 255, color & 255];
  const distance = (one, other) => {
    const [a, b] = [parts(one), parts(other)];
    return a.reduce((sum, part, i) => sum + (part - b[i]) ** 2, 0);
  };
  const numbers = new Map(colors.map((color, number) => [color, number]));
  for (const color of counts.keys()) {
    if (numbers.has(color)) continue;
    const nearest = colors.reduce((best, other) => (distance(color, other) < distance(color, best) ? other : best));
    numbers.set(color, colors.indexOf(nearest));
  }
  const indexed = Buffer.alloc(count);
  for (let at = 0; at < count; at++) indexed[at] = numbers.get(pixels.readUIntBE(at * channels, 3));
  return { table: Buffer.from(colors.flatMap(parts)), indexed };
}

function chunk(type, data) {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(data.length);
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc(body));
  return Buffer.concat([length, body, sum]);
}

function crc(data) {
  let sum = ~0;
  for (const byte of data) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return ~sum >>> 0;
}

/// The same picture in at most 256 colors. Takes what Chromium writes: 8 bits a sample, opaque.
export function smaller(png) {
  const found = [...chunks(png)];
  const header = Buffer.from(found[0].data);
  const [width, height, channels] = [header.readUInt32BE(0), header.readUInt32BE(4), header[9] === 6 ? 4 : 3];
  const lines = zlib.inflateSync(Buffer.concat(found.filter(({ type }) => type === 'IDAT').map(({ data }) => data)));
  const { table, indexed } = palette(unfiltered(lines, width, height, channels), channels);
  header[9] = 3;
  const rows = Array.from({ length: height }, (_, y) => [Buffer.of(0), indexed.subarray(y * width, (y + 1) * width)]);
  const packed = zlib.deflateSync(Buffer.concat(rows.flat()), { level: 9, memLevel: 9 });
  const parts = [chunk('IHDR', header), chunk('PLTE', table), chunk('IDAT', packed), chunk('IEND', Buffer.alloc(0))];
  return Buffer.concat([SIGNATURE, ...parts]);
}
