/** More results: requests the next ones when the person scrolls to the end. */

import { byId } from "../shared/dom.js";
import { Latest } from "../shared/api.js";
import { trouble } from "../shared/words.js";

// How far below the screen the end may be when the next results are requested.
const AHEAD = "600px";

export class Pages {
  #ask;
  #show;
  #button = byId("more");
  #note = byId("more-note");
  #next = null;
  #end = "";
  #question = new Latest();
  #near = false;

  /** `ask` searches with the parameters of a page; `show` gets the answer, and returns whether any result is new. */
  constructor(ask, show) {
    this.#ask = ask;
    this.#show = show;
    this.#button.addEventListener("click", () => this.#more());
    new IntersectionObserver(([entry]) => this.#look(entry.isIntersecting), { rootMargin: AHEAD }).observe(this.#button);
    // Nothing is requested before the first scroll: while drawing, people look only at the first photos.
    document.addEventListener("scroll", () => this.#near && window.scrollY > 0 && this.#more(), { passive: true });
  }

  /** Begin after the answer to another search. The button says `more`; after the last results, `end` is in its place. */
  start({ next }, { more, end }) {
    this.stop();
    this.#next = next;
    this.#button.textContent = more;
    this.#end = end;
    this.#offer();
  }

  stop() {
    this.#question.stop();
    this.#button.hidden = true;
    this.#note.textContent = "";
  }

  #look(near) {
    this.#near = near;
    if (near && window.scrollY > 0) {
      this.#more();
    }
  }

  #more() {
    if (this.#question.busy || this.#button.hidden) {
      return;
    }
    this.#note.textContent = "Looking for more\u2026";
    void this.#question.ask(
      (signal) => this.#ask({ next: this.#next }, signal),
      (answer) => this.#take(answer),
      // The button stays, so that it can be tried again.
      (error) => (this.#note.textContent = trouble(error).join(": ")),
    );
  }

  #take(answer) {
    const fresh = this.#show(answer);
    this.#next = answer.next;
    this.#offer();
    if (this.#near && (!fresh || window.scrollY > 0)) {
      // The observer reports changes only, and the button may have stayed in sight.
      requestAnimationFrame(() => this.#near && this.#more());
    }
  }

  #offer() {
    this.#button.hidden = this.#next === null;
    this.#note.textContent = this.#next === null ? this.#end : "";
  }
}
