/** The dialog about the collection, the one to choose a folder to index, and the line with the progress of a build. */

import * as api from "./shared/api.js";
import { show } from "./shared/history.js";
import { element, icon, byId, progress } from "./shared/dom.js";
import { building, count, facts, stopped, trouble, unreadFiles } from "./shared/words.js";

export class About {
  #dialog = byId("about");
  #remove;
  #folders = [];
  // The generation of the index that is described, whether this client may change it, and whether it has begun a build.
  #made = null;
  #grows = false;
  #begun = false;
  // What the note says before the state of the build.
  #already = "";

  /** @param {(folder: string) => Promise<number>} remove takes a folder out of the index; how many files that were */
  constructor(remove) {
    this.#remove = remove;
    byId("about-open").addEventListener("click", () => void this.#open());
  }

  /** Show the server's description. @param info the answer of /info */
  show(info) {
    byId("info").replaceChildren(...facts(info).map(([name, text]) => fact(name, text)));
    byId("about-open").textContent = info.index ? count(info.index.photos, "photo") : "About";
    this.#grows = Boolean(info.index) && info.allows.build;
    byId("growing").hidden = !this.#grows;
    byId("growing-how").hidden = !info.allows.needs_token;
    // While nothing can be searched, the notice shows the build, in larger type.
    const build = building(info.build);
    const left = stopped(info);
    byId("building").hidden = !info.ready || !(build || left);
    byId("building-text").textContent = build ? `${build.text} You can search the photos indexed so far.` : left ?? "";
    byId("building-on").hidden = !left;
    progress(byId("building-progress"), build?.share);
    if (this.#begun) {
      const state = build?.text ?? left ?? `Done: ${count(info.index?.photos ?? 0, "photo")} in the index.`;
      byId("about-note").textContent = this.#already + state;
    }
    if (this.#dialog.open && info.index && info.index.made !== this.#made) {
      void this.#read();
    }
    this.#made = info.index?.made ?? null;
  }

  /** A build has begun, to add a folder, or for changes alone. @param {string | null} folder */
  begun(folder) {
    this.#begun = true;
    this.#already = this.#folders.includes(folder) ? `${folder} is already in the index. ` : "";
    const what = folder && !this.#already ? `Adding ${folder}` : "Looking for new photos";
    byId("about-note").textContent = `${this.#already}${what}\u2026`;
  }

  #open() {
    this.#begun = false;
    byId("about-note").textContent = "";
    byId("gallery").replaceChildren();
    byId("unread").hidden = true;
    show(this.#dialog);
    return this.#read();
  }

  async #read() {
    try {
      this.#fill(await api.gallery());
    } catch (error) {
      // A gallery on many machines has no one description, and one that is not ready has none yet.
      byId("about-note").textContent = error.status === 404 || error.status === 503 ? "" : trouble(error).join(": ");
    }
  }

  #fill({ folders, updated, unread, files }) {
    this.#folders = folders;
    const day = new Date(updated).toLocaleString("en-GB", { dateStyle: "long", timeStyle: "short" });
    const list = element("ul", {}, ...folders.map((folder) => this.#folder(folder)));
    byId("gallery").replaceChildren(
      fact("Photos", byId("about-open").textContent),
      fact(folders.length > 1 ? "Folders" : "Folder", list),
      fact("Last changed", day),
    );
    byId("unread").hidden = !unread;
    byId("unread-count").textContent = unreadFiles(unread);
    byId("unread-list").replaceChildren(...files.map(({ path, reason }) => element("li", { textContent: `${path}: ${reason}` })));
  }

  #folder(folder) {
    const item = element("li", { className: "row" }, element("span", { textContent: folder }));
    if (this.#grows && this.#folders.length > 1) {
      const [textContent, ariaLabel] = ["Remove", `Remove ${folder} from the index`];
      const button = element("button", { type: "button", className: "quiet", textContent, ariaLabel });
      button.addEventListener("click", () => {
        // This needs a second press, because adding the folder again would read its photos again.
        if (button.textContent === textContent) {
          button.textContent = "Really remove";
        } else {
          void this.#take(folder);
        }
      });
      item.append(button);
    }
    return item;
  }

  async #take(folder) {
    this.#begun = false;
    try {
      const files = await this.#remove(folder);
      byId("about-note").textContent = `Removed ${count(files, "file")} from the index. The files themselves are untouched.`;
      await this.#read();
    } catch (error) {
      byId("about-note").textContent = trouble(error).at(-1);
    }
  }
}

const fact = (name, told) =>
  element("div", {}, element("dt", { textContent: name }), element("dd", {}, told));

const NO_FOLDERS = { path: "", above: null, folders: [] };

export class Folders {
  #dialog = byId("folders");
  #field = byId("folder");
  #note = byId("folder-note");
  #question = new api.Latest();
  // The folder in which the path is being typed, and what is in it.
  #within = { answer: NO_FOLDERS };

  /** @param {(folder: string, note: HTMLElement) => Promise<boolean>} build has the folder indexed, or says why not */
  constructor(build) {
    for (const opener of ["folder-choose", "folder-add"]) {
      byId(opener).addEventListener("click", () => this.#open());
    }
    this.#field.addEventListener("input", () => this.#complete());
    byId("folder-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      // A list that comes later would take the place of what is said now.
      this.#question.stop();
      if (await build(this.#field.value.trim(), this.#note)) {
        this.#dialog.close();
      }
    });
  }

  #open() {
    show(this.#dialog);
    this.#within = { answer: NO_FOLDERS };
    if (!this.#field.value) {
      this.#read("");
    }
  }

  /** List the folders in this one, or by default in the pictures folder of the server's user. */
  #read(path) {
    // A person who begins to type asks another question.
    void this.#question.ask(
      () => api.folders(path),
      (answer) => {
        this.#field.value = answer.path;
        this.#fill(answer);
      },
      (error) => (this.#note.textContent = trouble(error).at(-1)),
    );
  }

  /** List the folders that the path may become as it is typed; what is typed stays. */
  #complete() {
    const [, folder, start] = this.#field.value.trimStart().match(/^(.*[\\/])?(.*)$/);
    this.#note.textContent = "";
    if (folder !== this.#within.folder) {
      // Asked once, not at every key: a build waits for its turn behind such questions.
      this.#within = { folder, answer: folder ? api.folders(folder) : NO_FOLDERS };
    }
    const { answer } = this.#within;
    void this.#question.ask(
      () => answer,
      ({ path, above, folders }) => this.#fill({ path, above, folders: folders.filter((name) => startsWith(name, start)) }),
      () => byId("folders-list").replaceChildren(),
    );
  }

  #fill({ path: here, above, folders }) {
    const slash = here.includes("\\") ? "\\" : "/";
    const below = folders.map((name) => this.#item(name, `${here}${here.endsWith(slash) ? "" : slash}${name}`, "folder"));
    const list = byId("folders-list");
    const pressed = list.contains(document.activeElement);
    list.replaceChildren(...(above ? [this.#item("Parent folder", above, "up")] : []), ...below);
    if (pressed) {
      list.querySelector("button")?.focus(); // what had the focus is gone
    }
    this.#note.textContent = "";
  }

  #item(name, path, drawn) {
    const onclick = () => this.#read(path);
    return element("li", {}, element("button", { type: "button", onclick }, icon(drawn), name));
  }
}

const startsWith = (name, start) => name.toLowerCase().startsWith(start.toLowerCase());
