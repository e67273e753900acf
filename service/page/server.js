/** Whether the server can answer searches: checked until it can, and until no build is running. */

import * as api from "./shared/api.js";
import { building } from "./shared/words.js";

const CHECK_AGAIN_MS = 3000;

export class Server {
  limits = null;

  #react;
  #timer = 0;
  #ready = false;
  // Whether a build is running, or has just ended: the server uses its result a moment later.
  #building = false;
  #ended = false;

  /**
   * `react.told` gets each answer of /info; `ready` the first with which the server can answer searches, and the first
   * after a build; `unready` those while it cannot; `trouble` the error when it does not answer.
   */
  constructor(react) {
    this.#react = react;
  }

  get ready() {
    return this.#ready;
  }

  async check() {
    clearTimeout(this.#timer);
    let info;
    try {
      info = await api.info();
    } catch (error) {
      this.#ready = false;
      this.#react.trouble(error);
      return;
    }
    this.limits = info.limits;
    this.#react.told(info);
    if (!info.ready) {
      this.#ready = false;
      this.#react.unready(info);
    }
    const busy = Boolean(building(info.build));
    const built = this.#ended && !busy;
    this.#ended = this.#building && !busy;
    this.#building = busy;
    if (!info.ready || busy || this.#ended) {
      this.checkLater();
    }
    if (info.ready && (built || !this.#ready)) {
      this.#ready = true;
      this.#react.ready(info);
    }
  }

  checkLater() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.check(), CHECK_AGAIN_MS);
  }

  /** Cancel the next check, unless a build is running: the server has just answered. */
  rest() {
    if (!this.#building && !this.#ended) {
      clearTimeout(this.#timer);
    }
  }
}
