/** Decides when to search: shortly after a stroke, one search at a time; only the latest one is shown. */

import { Latest } from "../shared/api.js";

// Long enough to begin the next stroke of the same shape, short enough to feel immediate.
const PAUSE_MS = 200;

export class LiveSearch {
  #ask;
  #show;
  #timer = 0;
  #question = new Latest();

  /** `ask` does one search until a signal; `show` is told whether it is `busy`, what is `found`, and a `trouble`. */
  constructor(ask, show) {
    this.#ask = ask;
    this.#show = show;
  }

  soon() {
    this.#in(PAUSE_MS);
  }

  /** A stroke begins: cancel the search that waits for the pause. One that is running may still be shown. */
  hold() {
    clearTimeout(this.#timer);
  }

  stop() {
    this.hold();
    this.#question.stop();
    this.#show.busy(false);
  }

  async now() {
    this.hold();
    this.#show.busy(true);
    await this.#question.ask(this.#ask, this.#show.found, (error) => {
      this.#show.trouble(error);
      if (error.retryAfter > 0) {
        this.#in(error.retryAfter * 1000);
      }
    });
    if (!this.#question.busy) {
      this.#show.busy(false);
    }
  }

  #in(milliseconds) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.now(), milliseconds);
  }
}
