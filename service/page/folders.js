/** The dialog in which a folder of the server's machine is chosen, to be indexed. */

import * as api from "./shared/api.js";
import { show } from "./shared/dialogs.js";
import { element, icon, part } from "./shared/dom.js";
import { Latest } from "./shared/latest.js";
import { trouble } from "./shared/words.js";

export class Folders {
  #dialog = part("folders");
  #field = part("folder");
  #note = part("folder-note");
  #question = new Latest();

  /** @param {(folder: string, note: HTMLElement) => Promise<boolean>} build has the folder indexed, or says why not */
  constructor(build) {
    for (const opener of ["folder-choose", "folder-add"]) {
      part(opener).addEventListener("click", () => this.#open());
    }
    part("folder-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      if (await build(this.#field.value.trim(), this.#note)) {
        this.#dialog.close();
      }
    });
  }

  #open() {
    show(this.#dialog);
    void this.#read(this.#field.value.trim());
  }

  /** List the folders in this one, or else in that for the pictures of who runs the server. */
  #read(path) {
    return this.#question.ask(
      () => api.folders(path),
      (answer) => this.#fill(answer),
      (error) => (this.#note.textContent = trouble(error).at(-1)),
    );
  }

  #fill({ path: here, above, folders }) {
    const slash = here.includes("\\") ? "\\" : "/";
    const below = folders.map((name) => this.#item(name, `${here}${here.endsWith(slash) ? "" : slash}${name}`, "folder"));
    this.#field.value = here;
    const list = part("folders-list");
    const pressed = list.contains(document.activeElement);
    list.replaceChildren(...(above ? [this.#item("The folder above", above, "up")] : []), ...below);
    if (pressed) {
      list.querySelector("button")?.focus(); // what had the focus is gone
    }
    this.#note.textContent = "";
  }

  #item(name, path, drawn) {
    const onclick = () => void this.#read(path);
    return element("li", {}, element("button", { type: "button", onclick }, icon(drawn), name));
  }
}
