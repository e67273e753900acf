/** Image files as the page keeps them, and whether they show photos or drawings. */

import { element } from "../shared/dom.js";

// In pixels. Larger than what any network looks at, and small enough for the browser's storage.
const IMAGE_SIDE = 1024;
const IMAGE_BYTES = 500_000;
// As the server decides it: values above this are no ink on white, and of a sheet at least this share is transparent.
const NO_INK = 245;
const LEAST_SHEET = 0.2;
const LOOKED_AT_SIDE = 512;
const KEPT_TYPES = ["image/jpeg", "image/png"];
// The server draws it, as it draws one that a program sends.
const VECTOR = "image/svg+xml";
// A drawing is on paper: most of it has the colour of most of it, and that is white, grey or nearly so. Of 300 drawings
// the least had 0.73 of such paper; of 500 photos a tenth had 0.7, things before a plain wall.
const PAPER_SIDE = 64;
const SAME_COLOUR = 24;
const LEAST_PAPER = 0.7;
const MOST_COLOURFUL = 64;
// JPEG is what cameras write. On such paper, a fifth of 71 photos had more tones, of eight levels a channel; drawings by three
// pens hardly ever. Nor were drawings on dark paper: of 1,000 photos, 28 looked like drawings without this, 16 with it.
const CAMERA_TYPE = "image/jpeg";
const MOST_TONES = 40;
const DARKEST_PAPER = 128;
const CAMERA = /^image\/hei[cf]|\.hei[cf]$/i;

export async function open(source) {
  const image = element("img", { src: source });
  await image.decode();
  return image;
}

/** Whether an image of this type is a photo, or a drawing: guessed by ground and tones. @returns {"photo" | "sketch"} */
export function kindOf(image, type) {
  const { context, width, height } = sheetWith(image, PAPER_SIDE, "#ffffff");
  const { data } = context.getImageData(0, 0, width, height);
  const pixels = Array.from({ length: width * height }, (_, i) => data.subarray(4 * i, 4 * i + 3));
  const ground = [0, 1, 2].map((channel) => median(pixels.map((pixel) => pixel[channel])));
  const others = pixels.filter((pixel) => !ground.every((value, i) => Math.abs(pixel[i] - value) <= SAME_COLOUR));
  const plain = Math.max(...ground) - Math.min(...ground) <= MOST_COLOURFUL && others.length <= (1 - LEAST_PAPER) * pixels.length;
  const tones = new Set(others.map((pixel) => pixel.map((value) => value >> 5).join()));
  return plain && (type !== CAMERA_TYPE || (tones.size <= MOST_TONES && Math.max(...ground) >= DARKEST_PAPER)) ? "sketch" : "photo";
}

export const kindOfFile = ({ type, name }) => CAMERA.test(type) || CAMERA.test(name) ? "photo" : "sketch";

/**
 * An image file as a data URL: its own bytes where they are few, else a smaller JPEG of it on white; or on black, if it has
 * white strokes on nothing. The JPEG is read from a canvas, so a browser that guards against fingerprinting may disturb it.
 */
export async function toDataUrl(file, image) {
  const vector = file.type === VECTOR && file.size <= IMAGE_BYTES;
  if (!vector && onlyWhite(image)) { return shrunken(image, "#000000"); }
  const longer = Math.max(image.naturalWidth, image.naturalHeight);
  if (!vector && (longer > IMAGE_SIDE || file.size > IMAGE_BYTES || !KEPT_TYPES.includes(file.type))) {
    return shrunken(image, "#ffffff");
  }
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => done(reader.result));
    reader.addEventListener("error", () => failed(reader.error));
    reader.readAsDataURL(file);
  });
}

export function fromDataUrl(url) {
  const [, type, base64, data] = url.match(/^data:([^;,]+)[^,]*?(;base64)?,(.*)$/s);
  const text = decodeURIComponent(data);
  return new Blob([base64 ? Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)) : text], { type });
}

/** The image in a text: a data URL, or the code of an SVG, as programs copy it. @returns {File[]} one or none; a damaged one is empty */
export function pastedImage(text) {
  const code = /^<(svg|\?xml|!)/i.test(text) && /<svg[\s>]/i.test(text);
  if (!code && !/^data:image\//i.test(text)) {
    return [];
  }
  try {
    const image = code ? new Blob([text], { type: VECTOR }) : fromDataUrl(text);
    return [new File([image], "Pasted image", { type: image.type })];
  } catch {
    return [new File([], "Pasted image")];
  }
}

/** Whether it is transparent, and nothing in it could be seen on white. */
function onlyWhite(image) {
  const { context, width, height } = sheetWith(image, LOOKED_AT_SIDE);
  const { data } = context.getImageData(0, 0, width, height);
  let clear = 0;
  for (let at = 0; at < data.length; at += 4) {
    const alpha = data[at + 3];
    const least = Math.min(data[at], data[at + 1], data[at + 2]);
    if (255 - ((255 - least) * alpha) / 255 <= NO_INK) { return false; }
    clear += alpha < 128 ? 1 : 0;
  }
  return clear >= LEAST_SHEET * width * height;
}

const shrunken = (image, paper) => sheetWith(image, IMAGE_SIDE, paper).context.canvas.toDataURL("image/jpeg", 0.9);

/** A canvas with the image, its longer side at most `most` pixels, on paper of this colour or on none. */
function sheetWith(image, most, paper = "transparent") {
  const scale = Math.min(1, most / Math.max(image.naturalWidth, image.naturalHeight));
  const width = Math.max(1, Math.round(image.naturalWidth * scale));
  const height = Math.max(1, Math.round(image.naturalHeight * scale));
  const context = element("canvas", { width, height }).getContext("2d");
  context.fillStyle = paper;
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0, width, height);
  return { context, width, height };
}

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
