/** The dialog that says what is searched; and the line that says how far a build is. */

import * as api from "./shared/api.js";
import { show } from "./shared/dialogs.js";
import { element, part, progress } from "./shared/dom.js";
import { building, count, facts, stopped, trouble, unreadFiles } from "./shared/words.js";

export class About {
  #dialog = part("about");

  constructor() {
    part("about-open").addEventListener("click", () => void this.#open());
  }

  /** Show what the server has told of itself. @param info the answer of /info */
  show(info) {
    part("info").replaceChildren(...facts(info).map(([name, text]) => fact(name, text)));
    part("about-open").textContent = info.index ? count(info.index.photos, "photo") : "About";
    part("growing").hidden = !info.index || !info.allows.build;
    part("growing-how").hidden = !info.allows.needs_token;
    // While nothing can be searched, the notice shows the build, in larger type.
    const build = building(info.build);
    const left = stopped(info);
    part("building").hidden = !info.ready || !(build || left);
    part("building-text").textContent = build ? `${build.text} What is ready can be searched.` : left ?? "";
    part("building-on").hidden = !left;
    progress(part("building-progress"), build?.share);
  }

  async #open() {
    part("about-note").textContent = "";
    part("gallery").replaceChildren();
    part("unread").hidden = true;
    show(this.#dialog);
    try {
      this.#fill(await api.gallery());
    } catch (error) {
      // A gallery on many machines has no one description, and one that is not ready has none yet.
      part("about-note").textContent = error.status === 404 || error.status === 503 ? "" : trouble(error).join(": ");
    }
  }

  #fill({ folders, updated, unread, files }) {
    const day = new Date(updated).toLocaleString("en", { dateStyle: "long", timeStyle: "short" });
    part("gallery").replaceChildren(
      fact("Photos", part("about-open").textContent),
      fact(folders.length > 1 ? "Folders" : "Folder", folders.join("\n")),
      fact("Last changed", day),
    );
    part("unread").hidden = !unread;
    part("unread-count").textContent = unreadFiles(unread);
    part("unread-list").replaceChildren(...files.map(({ path, reason }) => element("li", { textContent: `${path}: ${reason}` })));
  }
}

function fact(name, text) {
  return element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: text }));
}
