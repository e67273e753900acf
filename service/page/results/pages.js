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
  #reading = null;
  #end = "";
  #question = new Latest();
  #near = false;

  /** `ask` searches with the parameters of a page; `show` gets the results that have not been there yet. */
  constructor(ask, show) {
    this.#ask = ask;
    this.#show = show;
    this.#button.addEventListener("click", () => this.#more());
    new IntersectionObserver(([entry]) => this.#look(entry.isIntersecting), { rootMargin: AHEAD }).observe(this.#button);
    // Nothing is requested before the first scroll: while drawing, people look only at the first photos.
    document.addEventListener("scroll", () => this.#near && window.scrollY > 0 && this.#more(), { passive: true });
  }

  /** Begin with a reading of another search (see reading.js). The button says `more`; in its place `end` is said. */
  start(reading, { more, end }) {
    this.stop();
    this.#reading = reading;
    this.#button.textContent = more;
    this.#end = end;
    this.#offer();
  }

  /** End: there are no results to continue. */
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
      (signal) => this.#ask(this.#reading.next(), signal),
      (answer) => this.#take(answer),
      // The button stays, so that it can be tried again.
      (error) => (this.#note.textContent = trouble(error).join(": ")),
    );
  }

  #take(answer) {
    const fresh = this.#reading.take(answer);
    this.#show(fresh);
    this.#offer();
    if (this.#near && (!fresh.length || window.scrollY > 0)) {
      // The observer reports changes only, and the button may have stayed in sight.
      requestAnimationFrame(() => this.#near && this.#more());
    }
  }

  #offer() {
    const over = !this.#reading.next();
    this.#button.hidden = over;
    this.#note.textContent = over && this.#reading.known ? this.#end : "";
  }
}
