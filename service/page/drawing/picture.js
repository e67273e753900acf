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
const [PAPER_SIDE, SAME_COLOUR, LEAST_PAPER, MOST_COLOURFUL] = [64, 24, 0.7, 64];
// JPEG is what cameras write. On such paper, a fifth of 71 photos had more tones, of eight levels a channel; drawings by three
// pens hardly ever. Nor were drawings on dark paper: of 1,000 photos, 28 looked like drawings without this, 16 with it.
const CAMERA_TYPE = "image/jpeg";
const MOST_TONES = 40;
const DARKEST_PAPER = 128;
// Of what is drawn on striped or woven paper in a shadow, at least this share is like the ground of so many pixels around it. By
// both rules five of 334 photos were taken for drawings, and none of 75 drawings on plain, striped and woven paper for a photo.
const SHADED = { width: 8, least: 0.75, tones: 22, shadow: 75, colour: 30 };
const CAMERA = /^image\/hei[cf]|\.hei[cf]$/i;

export async function open(/** @type {string} */ source) {
  const image = element("img", { src: source });
  await image.decode();
  return image;
}

/** Whether an image of this type is a photo, or a drawing: guessed by ground and tones. @type {(image: HTMLImageElement, type: string) => Kind} */
export function kindOf(image, type) {
  const whole = sheetWith(image, PAPER_SIDE, "#ffffff");
  const pixels = pixelsOf(whole);
  const at = (/** @type {number} */ share, /** @type {number[]} */ values) => values.sort((a, b) => a - b)[Math.floor(share * values.length)];
  const ground = [0, 1, 2].map((channel) => at(0.5, pixels.map((pixel) => pixel[channel])));
  const grey = Math.max(...ground) - Math.min(...ground) <= MOST_COLOURFUL;
  /** @type {(least: number, most: number, groundAt: (i: number) => number[]) => boolean} */
  const isPaper = (least, most, groundAt) => {
    const others = pixels.filter((pixel, i) => !groundAt(i).every((value, channel) => Math.abs(pixel[channel] - value) <= SAME_COLOUR));
    const tones = new Set(others.map((pixel) => pixel.map((value) => value >> 5).join()));
    return others.length <= (1 - least) * pixels.length && tones.size <= most;
  };
  if (type !== CAMERA_TYPE) { return grey && isPaper(LEAST_PAPER, Infinity, () => ground) ? "sketch" : "photo"; }
  if (Math.max(...ground) < DARKEST_PAPER) { return "photo"; }
  if (grey && isPaper(LEAST_PAPER, MOST_TONES, () => ground)) { return "sketch"; }
  // Of a photo of paper, the ground of a place is what lies around it: there may be stripes or folds, and a shadow.
  const { canvas } = sheetWith(image, PAPER_SIDE / SHADED.width, "#ffffff").context;
  whole.context.drawImage(canvas, 0, 0, whole.width, whole.height);
  const around = pixelsOf(whole);
  const lights = around.map((pixel) => Math.max(...pixel));
  const colours = around.map((pixel) => Math.max(...pixel) - Math.min(...pixel));
  const even = at(0.95, lights) - at(0.05, lights) <= SHADED.shadow && at(0.9, colours) <= SHADED.colour;
  return even && isPaper(SHADED.least, SHADED.tones, (i) => around[i]) ? "sketch" : "photo";
}

function pixelsOf(/** @type {Sheet} */ { context, width, height }) {
  const { data } = context.getImageData(0, 0, width, height);
  return Array.from({ length: width * height }, (_, i) => [...data.subarray(4 * i, 4 * i + 3)]);
}

export const kindOfFile = (/** @type {File} */ { type, name }) => CAMERA.test(type) || CAMERA.test(name) ? "photo" : "sketch";

/** An image file as a data URL: as it is, or as a JPEG on white; on black if all is white. @type {(file: File, image: HTMLImageElement) => Promise<string>} */
export async function toDataUrl(file, image) {
  const vector = file.type === VECTOR && file.size <= IMAGE_BYTES;
  if (!vector && onlyWhite(image)) { return shrunken(image, "#000000"); }
  const longer = Math.max(image.naturalWidth, image.naturalHeight);
  if (!vector && (longer > IMAGE_SIDE || file.size > IMAGE_BYTES || !KEPT_TYPES.includes(file.type))) {
    return shrunken(image, "#ffffff");
  }
  return new Promise((done, failed) => {
    const reader = Object.assign(new FileReader(), { onload: () => done(`${reader.result}`), onerror: () => failed(reader.error) });
    reader.readAsDataURL(file);
  });
}

export function fromDataUrl(/** @type {string} */ url) {
  const [, type, base64, data] = url.match(/^data:([^;,]+)[^,]*?(;base64)?,(.*)$/s);
  const text = decodeURIComponent(data);
  return new Blob([base64 ? Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)) : text], { type });
}

/** The image in a text: a data URL, or the code of an SVG, as programs copy it. A damaged one is empty. @type {(text: string) => File[]} */
export function pastedImage(text) {
  const code = /^<(svg|\?xml|!)/i.test(text) && /<svg[\s>]/i.test(text);
  if (!code && !/^data:image\//i.test(text)) { return []; }
  try {
    const image = code ? new Blob([text], { type: VECTOR }) : fromDataUrl(text);
    return [new File([image], "Pasted image", { type: image.type })];
  } catch {
    return [new File([], "Pasted image")];
  }
}

/** The image, turned to the right by a right angle, as a data URL. @type {(image: HTMLImageElement) => string} */
export function turnedRight(image) {
  const { context: { canvas }, width, height } = sheetWith(image, IMAGE_SIDE);
  const context = element("canvas", { width: height, height: width }).getContext("2d");
  context.setTransform(0, 1, -1, 0, height, 0);
  context.drawImage(canvas, 0, 0);
  return context.canvas.toDataURL(image.src.startsWith(`data:${CAMERA_TYPE}`) ? CAMERA_TYPE : "image/png", 0.9);
}

/** Whether it is transparent, and nothing in it could be seen on white. @type {(image: HTMLImageElement) => boolean} */
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

/** @type {(image: HTMLImageElement, paper: string) => string} */
const shrunken = (image, paper) => sheetWith(image, IMAGE_SIDE, paper).context.canvas.toDataURL("image/jpeg", 0.9);

/** A canvas with the image, with at most so many pixels a side. @type {(image: HTMLImageElement, most: number, paper?: string) => Sheet} */
function sheetWith(image, most, paper = "transparent") {
  const scale = Math.min(1, most / Math.max(image.naturalWidth, image.naturalHeight));
  const [width, height] = [image.naturalWidth, image.naturalHeight].map((side) => Math.max(1, Math.round(side * scale)));
  const context = element("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
  context.fillStyle = paper;
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  return { context, width, height };
}
