/** The dialog about the collection, the one to choose a folder to index, and the line with the progress of a build. */

import * as api from "./shared/api.js";
import { show } from "./shared/history.js";
import { element, icon, byId, progress } from "./shared/dom.js";
import { building, count, facts, indexed, stopped, trouble } from "./shared/words.js";

/** The dialog about the collection; `remove` takes a folder out of the index, as in api.js. */
export function createAbout(remove) {
  const [dialog, note] = [byId("about"), byId("about-note")];
  let folders = [];
  // The index that is described, its files, how many were copies when a build began, whether this client may change it, and has begun one.
  let [here, files, copies] = [null, 0, 0];
  let [grows, begun, already, tell] = [false, false, "", () => undefined];

  byId("about-open").addEventListener("click", () => {
    begun = false;
    note.textContent = "";
    byId("gallery").replaceChildren();
    byId("unread").hidden = true;
    show(dialog);
    void read();
  });

  async function read() {
    try {
      fill(await api.gallery());
    } catch (error) {
      // A gallery on many machines has no one description, and one that is not ready has none yet.
      note.textContent = [404, 503].includes(/** @type {any} */ (error).status) ? "" : trouble(error).join(": ");
    }
  }

  function fill(gallery) {
    folders = gallery.folders;
    files = Object.values(gallery.days).reduce((sum, ofDay) => sum + ofDay, 0);
    tell();
    const day = new Date(gallery.updated).toLocaleString("en-GB", { dateStyle: "long", timeStyle: "short" });
    byId("gallery").replaceChildren(
      fact("Photos", byId("about-open").textContent),
      fact(folders.length > 1 ? "Folders" : "Folder", element("ul", {}, ...folders.map(item))),
      fact("Last changed", day),
    );
    byId("unread").hidden = !gallery.unread;
    byId("unread-count").textContent = `${count(gallery.unread, "file")} could not be read`;
    byId("unread-list").replaceChildren(...gallery.files.map(({ path, reason }) => element("li", { textContent: `${path}: ${reason}` })));
  }

  function item(folder) {
    const [textContent, ariaLabel] = ["Remove", `Remove ${folder} from the index`];
    const onclick = ({ target }) => {
      // This needs a second press, because adding the folder again would read its photos again.
      if (target.textContent === textContent) { target.textContent = "Really remove"; } else { void take(folder); }
    };
    const removable = grows && folders.length > 1;
    const button = element("button", { type: "button", className: "quiet", textContent, ariaLabel, onclick });
    return element("li", { className: "row" }, element("span", { textContent: folder }), ...(removable ? [button] : []));
  }

  async function take(folder) {
    begun = false;
    try {
      const { files } = await remove(folder);
      note.textContent = `Removed ${count(files, "file")} from the index. The files themselves are untouched.`;
      await read();
    } catch (error) {
      note.textContent = trouble(error).at(-1);
    }
  }

  return {
    show(info) {
      byId("info").replaceChildren(...facts(info).map(([name, text]) => fact(name, text)));
      byId("about-open").textContent = info.index ? count(info.index.photos, "photo") : "About";
      grows = Boolean(info.index) && info.allows.build;
      byId("growing").hidden = !grows;
      byId("growing-how").hidden = !info.allows.needs_token;
      // While nothing can be searched, the notice shows the build, in larger type.
      const [build, left] = [building(info.build), stopped(info)];
      byId("building").hidden = !info.ready || !(build || left);
      byId("building-text").textContent = build ? `${build.text} You can search the photos indexed so far.` : left ?? "";
      byId("building-on").hidden = !left;
      progress(byId("building-progress"), build?.share);
      const photos = info.index?.photos ?? 0;
      tell = () => { if (begun) { note.textContent = already + (build?.text ?? left ?? indexed(photos, files - photos - copies)); } };
      tell();
      if (dialog.open && info.index && info.index.made !== here?.made) { void read(); }
      here = info.index;
    },

    /** A build has begun, to add a folder, or for changes alone. @param {string | null} folder */
    begun(folder) {
      [begun, copies] = [true, files - (here?.photos ?? 0)];
      already = folders.includes(folder) ? `${folder} is already in the index. ` : "";
      note.textContent = `${already}${folder && !already ? `Adding ${folder}` : "Looking for new photos"}\u2026`;
    },
  };
}

const fact = (name, told) => element("div", {}, element("dt", { textContent: name }), element("dd", {}, told));

const NO_FOLDERS = /** @type {Folder} */ ({ path: "", above: null, folders: [] });

/** The dialog to choose a folder, which `build` has indexed, or says in a note why not. */
export function offerFolders(build) {
  const [dialog, field, note, list] = [byId("folders"), byId("folder"), byId("folder-note"), byId("folders-list")];
  const question = new api.Latest();
  let within = /** @type {{folder?: string, answer: Folder | Promise<Folder>}} */ ({ answer: NO_FOLDERS });

  for (const opener of ["folder-choose", "folder-add"]) {
    byId(opener).addEventListener("click", () => {
      show(dialog);
      within = { answer: NO_FOLDERS };
      if (!field.value) { read(""); }
    });
  }
  field.addEventListener("input", complete);
  byId("folder-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    // A list that comes later would take the place of what is said now.
    question.stop();
    if (await build(field.value.trim(), note)) { dialog.close(); }
  });

  /** List the folders in this one, or by default in the pictures folder of the server's user. */
  function read(path) {
    void question.ask(
      () => api.folders(path),
      (answer) => {
        field.value = answer.path;
        fill(answer);
      },
      (error) => (note.textContent = trouble(error).at(-1)),
    );
  }

  /** List the folders that the path may become as it is typed; what is typed stays. */
  function complete() {
    const [, folder, start] = field.value.trimStart().match(/^(.*[\\/])?(.*)$/);
    note.textContent = "";
    if (folder !== within.folder) {
      // Asked once, not at every key: a build waits for its turn behind such questions.
      within = { folder, answer: folder ? api.folders(folder) : NO_FOLDERS };
    }
    void question.ask(
      () => within.answer,
      (answer) => fill({ ...answer, folders: answer.folders.filter((name) => name.toLowerCase().startsWith(start.toLowerCase())) }),
      () => list.replaceChildren(),
    );
  }

  function fill({ path: here, above, folders }) {
    const slash = here.includes("\\") ? "\\" : "/";
    const below = folders.map((name) => item(name, `${here}${here.endsWith(slash) ? "" : slash}${name}`, "folder"));
    const pressed = list.contains(document.activeElement);
    list.replaceChildren(...(above ? [item("Parent folder", above, "up")] : []), ...below);
    // What had the focus is gone.
    if (pressed) { list.querySelector("button")?.focus(); }
    note.textContent = "";
  }

  const item = (name, path, drawn) =>
    element("li", {}, element("button", { type: "button", onclick: () => read(path) }, icon(drawn), name));
}
