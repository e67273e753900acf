/** "Which is closer?": asks about two photos at a time, until the one photo is found that somebody remembers. */

import { element, part } from "../shared/dom.js";
import { count } from "../shared/words.js";

// So many answers, and questions without one, a server takes together.
const MOST = 32;
const SIZE = 512;

export class Closer extends EventTarget {
  #api;
  #parts;
  #box = part("closer");
  #button = part("closer-open");
  #photos = [part("closer-first"), part("closer-second")];
  #open = false;
  #possible = false;
  // The ids of the two photos that are asked about; null while the next question is not there.
  #question = null;
  // The questions that were passed over, as a server takes them. They are forgotten when the person is done.
  #skipped = [];
  #taking = false;

  /**
   * Events: "change" when it asks, passes over a question, or is done.
   *
   * @param {import("../shared/api.js").Api} api
   * @param {import("./parts.js").Parts} parts where answers are put into
   */
  constructor(api, parts) {
    super();
    this.#api = api;
    this.#parts = parts;
    this.#button.addEventListener("click", () => (this.#open ? this.#done() : this.#begin()));
    part("closer-done").addEventListener("click", () => this.#done());
    part("closer-skip").addEventListener("click", () => this.#skip());
    this.#photos.forEach((button, place) => button.addEventListener("click", () => this.#answer(place)));
  }

  /** The parameters of a search by a drawing, changed for one photo where one is looked for. */
  applied(params) {
    if (!this.#open && !params.closer.length) {
      return params;
    }
    const asks = this.#open && params.closer.length < MOST;
    // A kind shows one of its photos only, and the one photo may be another.
    const view = params.view === "auto" ? "photos" : params.view;
    const skip = this.#skipped.slice(params.closer.length - MOST);
    return { ...params, view, ...(asks ? { ask: "true", skip } : {}) };
  }

  /** Say whether one photo can be looked for now. */
  offer(possible) {
    this.#possible = possible;
    this.#show();
  }

  /** Ask about these two photos. @param {number[] | undefined} question their ids; undefined: there are no two left */
  ask(question) {
    this.#question = question?.map(String) ?? null;
    this.#show();
    if (!this.#open) {
      return;
    }
    const answers = this.#parts.params.closer.length;
    const said = answers ? `${count(answers, "answer")} so far.` : "The photos below follow your answers.";
    part("closer-pair").hidden = !question;
    part("closer-skip").hidden = !question;
    if (question) {
      const names = this.#question.map((id, place) => this.#fill(this.#photos[place], id));
      const asked = element("span", { className: "unseen", textContent: ` ${names.join(" or ")}?` });
      part("closer-said").replaceChildren(said, asked);
    } else {
      part("closer-said").textContent = "There is nothing more to ask.";
    }
    if (this.#taking) {
      this.#taking = false;
      (question ? this.#photos[0] : part("closer-done")).focus({ preventScroll: true });
    }
  }

  /** Ask no longer, because something else is searched for. */
  end() {
    this.#open = false;
    this.#skipped = [];
    this.#show();
  }

  #begin() {
    this.#open = true;
    this.#taking = true;
    this.#question = null;
    this.#changed();
  }

  #answer(place) {
    if (this.#question) {
      const [closer, farther] = place ? [...this.#question].reverse() : this.#question;
      this.#question = null;
      this.#show();
      this.#parts.set({ closer: [...this.#parts.params.closer, `${closer},${farther}`] });
    }
  }

  #skip() {
    if (this.#question) {
      this.#skipped.push(this.#question.join());
      this.#question = null;
      this.#changed();
    }
  }

  #done() {
    this.end();
    this.#button.focus({ preventScroll: true });
    this.#changed();
  }

  #changed() {
    this.#show();
    this.dispatchEvent(new Event("change"));
  }

  #show() {
    this.#button.hidden = !this.#possible;
    this.#button.ariaExpanded = String(this.#open);
    this.#box.hidden = !this.#open || !this.#possible;
    this.#box.ariaBusy = String(!this.#question);
  }

  /** Show this photo on a button. Returns its name. */
  #fill(button, id) {
    const name = this.#parts.name(id);
    void this.#api.show(button.firstElementChild, `thumbnails/${id}?size=${SIZE}`);
    button.ariaLabel = `Closer: ${name}`;
    button.title = name;
    return name;
  }
}
