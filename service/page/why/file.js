/** An explanation that `sketch-search explain` has written into a file: the dialog alone, with data that the file holds. */

import { part } from "../shared/dom.js";
import { Why } from "./why.js";

const { kind, ...written } = JSON.parse(part("explanation").textContent);
const photos = written.photos.map((photo, id) => ({ ...photo, id }));
const results = photos.map(({ id, path }) => ({ id, rank: id + 1, paths: [path] }));
const api = {
  explain: async () => ({ ...written, photos, timings_ms: {} }),
  show: (image, url) => Object.assign(image, { src: url }),
};
const why = new Why(api, () => undefined, (dialog) => dialog.show());
part("why-close").hidden = true;
why.open({ blob: new Blob(), kind, marks: [], paper: "#ffffff", liked: [] }, results);
