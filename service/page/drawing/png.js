/** PNG files from pixels, as the third edition of the PNG specification describes them. */

/** Red, green and blue. */
export const CHANNELS = 3;

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const BITS = 8;
const RGB = 2;
const CRC_POLYNOMIAL = 0xedb88320;
const CRCS = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) {
    crc = crc & 1 ? (crc >>> 1) ^ CRC_POLYNOMIAL : crc >>> 1;
  }
  return crc;
});

/**
 * A square image as a PNG file.
 *
 * @param {Uint8Array} pixels side * side pixels, row by row from the top, each red, green and blue
 * @param {number} side in pixels
 * @returns {Promise<Blob>}
 */
export async function png(pixels, side) {
  const head = new DataView(new ArrayBuffer(13));
  head.setUint32(0, side);
  head.setUint32(4, side);
  head.setUint8(8, BITS);
  head.setUint8(9, RGB);
  const data = await deflated(rows(pixels, side));
  const parts = [chunk("IHDR", new Uint8Array(head.buffer)), chunk("IDAT", data), chunk("IEND", new Uint8Array())];
  return new Blob([Uint8Array.from(SIGNATURE), ...parts], { type: "image/png" });
}

/** The rows, each after a byte that says how it is filtered: 0, not at all. */
function rows(pixels, side) {
  const length = CHANNELS * side;
  const all = new Uint8Array((length + 1) * side);
  for (let y = 0; y < side; y++) {
    all.set(pixels.subarray(y * length, (y + 1) * length), y * (length + 1) + 1);
  }
  return all;
}

async function deflated(bytes) {
  const stream = new CompressionStream("deflate");
  const writer = stream.writable.getWriter();
  const written = writer.write(bytes).then(() => writer.close());
  const [data] = await Promise.all([new Response(stream.readable).arrayBuffer(), written]);
  return new Uint8Array(data);
}

/** Length, name, data, and a checksum of name and data. */
function chunk(name, data) {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set([...name].map((letter) => letter.charCodeAt(0)), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc = (crc >>> 8) ^ CRCS[(crc ^ byte) & 0xff];
  }
  return ~crc;
}
