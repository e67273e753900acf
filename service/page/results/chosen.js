/** Photos chosen in the grid, to download as a ZIP file or as a list of paths. */

import * as api from "../shared/api.js";
import { download, byId } from "../shared/dom.js";
import { chosenCount, trouble } from "../shared/words.js";

// The most photos in one request.
const MOST = 64;

export class Chosen {
  #ids = new Set();
  #button = byId("choose");

  constructor() {
    this.#button.addEventListener("click", () => this.#turn(!this.on));
    byId("chosen-all").addEventListener("click", () => this.#all());
    byId("chosen-zip").addEventListener("click", () => void this.#save(() => api.downloadFrom("photos.zip", { id: [...this.#ids] }, "photos.zip")));
    byId("chosen-list").addEventListener("click", () => void this.#save(() => this.#list()));
  }

  get on() {
    return this.#button.ariaPressed === "true";
  }

  offer(yes) {
    this.#button.hidden = !yes;
    byId("chosen").hidden = !yes || !this.on;
  }

  turn(photo) {
    if (!this.#ids.delete(photo.id)) {
      this.#add(photo.id);
    }
    this.#tell();
  }

  mark(button, { id }) {
    button.dataset.photo = id;
    button.ariaPressed = this.on ? String(this.#ids.has(id)) : null;
  }

  #turn(on) {
    this.#button.ariaPressed = String(on);
    this.#ids.clear();
    this.offer(true);
    this.#tell();
  }

  #all() {
    this.#buttons().forEach(({ dataset }) => this.#add(Number(dataset.photo)));
    this.#tell();
  }

  #add(id) {
    if (this.#ids.size < MOST) {
      this.#ids.add(id);
    }
  }

  #tell() {
    this.#buttons().forEach((button) => this.mark(button, { id: Number(button.dataset.photo) }));
    byId("chosen-count").textContent = chosenCount(this.#ids.size, MOST);
    for (const name of ["chosen-zip", "chosen-list"]) {
      byId(name).disabled = !this.#ids.size;
    }
  }

  #buttons() {
    return document.querySelectorAll("#results .photo");
  }

  async #save(make) {
    try {
      await make();
    } catch (error) {
      byId("chosen-count").textContent = trouble(error).join(": ");
    }
  }

  async #list() {
    const photos = await api.photos([...this.#ids]);
    const lines = photos.map(({ paths, files = paths }) => `${files[0]}\n`);
    download(new Blob(lines, { type: "text/plain" }), "photos.txt");
  }
}
