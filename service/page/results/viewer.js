/** The dialog with the whole photo and its actions. */

import * as api from "../shared/api.js";
import { show } from "../shared/history.js";
import { breakable, download, element, byId } from "../shared/dom.js";
import { fileName, numberOf, photoFacts, trouble } from "../shared/words.js";
import { Zoom } from "./zoom.js";

const ENLARGED = 2.5;

export class Viewer {
  #react;
  #parts;
  #dialog = byId("viewer");
  #image = byId("viewer-image");
  #zoom = new Zoom(this.#image);
  #photos = [];
  #place = 0;
  #counted = false;

  /** `react` can `search` with a photo's file and `explain` a result where `explainable`; photos go into `parts`. */
  constructor(react, parts) {
    this.#react = react;
    this.#parts = parts;
    this.#on("previous", () => this.#step(-1));
    this.#on("next", () => this.#step(1));
    this.#on("copy", () => this.#copy());
    this.#on("reveal", () => this.#reveal());
    this.#on("download", () => this.#download());
    this.#on("search", () => this.#searchWith());
    for (const action of ["like", "unlike"]) {
      this.#on(action, () => this.#parts[action](this.#photos[this.#place]));
    }
    this.#on("why", () => this.#react.explain(this.#photos[this.#place]));
    this.#image.addEventListener("load", () => this.#loaded());
    this.#image.addEventListener("error", () => this.#fallBack());
    this.#dialog.addEventListener("keydown", (event) => this.#key(event));
    // A click on the backdrop has the dialog itself as its target; everything inside has an element of its own.
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#dialog.close());
  }

  /** Show the photo at this place, from 0; `counted` if they are all that were found: a rank is one of so many. */
  open(photos, place, counted = false) {
    this.#photos = photos;
    this.#place = place;
    this.#counted = counted;
    this.#fill();
    if (!this.#dialog.open) {
      show(this.#dialog, () => this.#photos.length > 0);
    }
  }

  /** Other photos were found. The browser's Forward cannot open the earlier ones again. */
  forget() {
    if (!this.#dialog.open) {
      this.#photos = [];
    }
  }

  #fill() {
    const photo = this.#photos[this.#place];
    const name = fileName(photo.paths[0]);
    const found = photo.rank !== undefined;
    byId("viewer-title").replaceChildren(...breakable(name));
    byId("viewer-title").title = name;
    byId("viewer-found").hidden = !found;
    if (found) {
      const ranked = this.#photos.filter(({ rank }) => rank !== undefined).length;
      byId("viewer-rank-label").textContent = photo.group ? "Group" : "Rank";
      byId("viewer-rank").textContent = this.#counted ? `${photo.rank} of ${ranked}` : numberOf(photo);
    }
    byId("viewer-like").ariaPressed = String(this.#parts.likes(photo));
    byId("viewer-why").hidden = !found || !this.#react.explainable();
    byId("viewer-paths-label").textContent = photo.paths.length > 1 ? "Paths of this photo" : "Path";
    this.#list(photo.paths);
    const link = byId("viewer-link");
    Object.assign(link, { hidden: !photo.link, href: photo.link ?? "" });
    link.textContent = `Open at ${link.hostname}`;
    byId("viewer-note").textContent = "";
    byId("viewer-previous").disabled = this.#place === 0;
    byId("viewer-next").disabled = this.#place === this.#photos.length - 1;
    this.#image.alt = name;
    // The thumbnail of the grid is there at once; the photo takes its place when it has come.
    const shown = [...document.querySelectorAll("#results img")].find(({ dataset }) => dataset.path?.startsWith(`${photo.thumbnail_url}?`));
    const small = shown?.naturalWidth && !api.hasKey() ? `url("${shown.currentSrc}")` : "";
    this.#image.parentElement.style.setProperty("--small", small || "none");
    this.#image.removeAttribute("src");
    this.#dialog.classList.add("loading");
    this.#zoom.reset();
    byId("viewer-original").hidden = !photo.photo_url || api.hasKey();
    byId("viewer-original").href = (photo.photo_url ?? "").slice(1);
    void api.show(this.#image, this.#whole());
    void this.#tell(photo);
  }

  /** Say when and with what the photo was taken, as far as its file and the server tell. */
  async #tell(photo) {
    const list = byId("viewer-facts");
    list.replaceChildren();
    const facts = photo.photo_url && (await api.facts(photo.id).catch(() => null));
    if (facts && photo === this.#photos[this.#place]) {
      const rows = photoFacts(facts);
      list.replaceChildren(...rows.flatMap(([name, textContent]) => [element("dt", { textContent: name }), element("dd", { textContent })]));
    }
  }

  #list(paths) {
    byId("viewer-paths").replaceChildren(...paths.map((path) => element("li", {}, ...breakable(path))));
  }

  #whole() {
    return this.#photos[this.#place].photo_url ?? this.#small();
  }

  #small() {
    return `${this.#photos[this.#place].thumbnail_url}?size=1024`;
  }

  #loaded() {
    // A small photo is not enlarged to a whole large screen, where its pixels would be visible.
    this.#image.style.maxWidth = `${ENLARGED * this.#image.naturalWidth}px`;
    this.#image.style.maxHeight = `${ENLARGED * this.#image.naturalHeight}px`;
    this.#dialog.classList.remove("loading");
  }

  /** Show the thumbnail: browsers cannot show every format that can be indexed, and the file may be gone. */
  #fallBack() {
    if (this.#image.dataset.path !== this.#small()) {
      void api.show(this.#image, this.#small());
      return;
    }
    this.#dialog.classList.remove("loading");
    this.#say("This photo can no longer be opened.");
  }

  know({ allows }) {
    byId("viewer-reveal").hidden = !allows.reveal;
  }

  async #reveal() {
    await api.reveal(this.#photos[this.#place].id);
    this.#say("Its folder is open in the file manager.");
  }

  /** Copy where the photo lies: on the disk, where the server tells, else in the gallery. */
  async #copy() {
    const photo = this.#photos[this.#place];
    const [{ paths, files = paths }] = await api.photos([photo.id]).catch(() => [photo]);
    if (photo !== this.#photos[this.#place]) {
      return;
    }
    this.#list(files);
    const text = files.join("\n");
    try {
      await navigator.clipboard.writeText(text);
      this.#say("Copied.");
    } catch {
      // Browsers allow the clipboard only to pages that came by HTTPS or from this machine.
      getSelection().selectAllChildren(byId("viewer-paths"));
      this.#say("The path is selected: copy it with Ctrl C.");
    }
  }

  /** Search with the thumbnail: it is large enough for the network, and every browser can show it. */
  async #searchWith() {
    const name = this.#image.alt;
    const blob = await api.file(this.#small());
    this.#dialog.close();
    this.#react.search(new File([blob], name, { type: blob.type }));
  }

  async #download() {
    const name = this.#image.alt;
    download(await api.file(this.#whole()), name);
  }

  #say(text) {
    byId("viewer-note").textContent = text;
  }

  #step(by) {
    if (this.#place + by in this.#photos) {
      this.#place += by;
      this.#fill();
    }
  }

  #key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) {
      event.preventDefault();
      this.#step(by);
    } else if (!event.ctrlKey && !event.metaKey && this.#zoom.press(event)) {
      event.preventDefault();
    }
  }

  /** React to a press of a button, and say what goes wrong. */
  #on(name, react) {
    byId(`viewer-${name}`).addEventListener("click", async () => {
      try {
        await react();
      } catch (error) {
        this.#say(trouble(error).join(": "));
      }
    });
  }
}
