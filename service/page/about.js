/** The dialog that says what is searched, and by what; and the line that says how far a build is. */

import { show } from "./shared/dialogs.js";
import { element, part, progress } from "./shared/dom.js";
import { building, count, facts, stopped } from "./shared/words.js";

export class About {
  #dialog = part("about");

  constructor() {
    part("about-open").addEventListener("click", () => show(this.#dialog));
    part("about-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#dialog.close());
  }

  /** Show what the server has told of itself. @param info the answer of /info */
  show(info) {
    const rows = facts(info).map(([name, text]) =>
      element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: text })),
    );
    part("info").replaceChildren(...rows);
    part("about-open").textContent = info.index ? count(info.index.photos, "photo") : "About";
    // While nothing can be searched, the notice shows the build, in larger type.
    const build = building(info.build);
    const left = stopped(info);
    part("building").hidden = !info.ready || !(build || left);
    part("building-text").textContent = build ? `${build.text} What is ready can be searched.` : left ?? "";
    part("building-on").hidden = !left;
    progress(part("building-progress"), build?.share);
  }
}
