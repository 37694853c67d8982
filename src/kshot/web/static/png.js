// Encode labels as 8-bit grey PNG (value of the class) and decode them. A canvas would write four channels.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const GREY = [8, 0, 0, 0, 0]; // bits, colour type, compression, filter, interlace

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? 0xedb88320 ^ (byte >>> 1) : byte >>> 1;
  return byte;
});

function checksum(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = CRC[(sum ^ byte) & 255] ^ (sum >>> 8);
  return ~sum >>> 0;
}

const number = (value) => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];

function chunk(kind, data) {
  const named = new Uint8Array(4 + data.length);
  named.set([...kind].map((letter) => letter.charCodeAt(0)));
  named.set(data, 4);
  return [new Uint8Array(number(data.length)), named, new Uint8Array(number(checksum(named)))];
}

export async function encode(labels, width, height) {
  const rows = new Uint8Array((width + 1) * height); // each begins with its filter, 0
  for (let y = 0; y < height; y++) rows.set(labels.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const stream = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  const header = new Uint8Array([...number(width), ...number(height), ...GREY]);
  const parts = [...chunk("IHDR", header), ...chunk("IDAT", packed), ...chunk("IEND", [])];
  return new Blob([new Uint8Array(SIGNATURE), ...parts], { type: "image/png" });
}

export async function decode(blob) {
  const exactly = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(blob, exactly);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  return Uint8Array.from({ length: data.length / 4 }, (_, pixel) => data[4 * pixel]);
}
