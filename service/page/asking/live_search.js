/** Decides when to search: shortly after a stroke, one search at a time; only the latest one is shown. */

// Long enough to begin the next stroke of the same shape, short enough to feel immediate.
const PAUSE_MS = 200;

export class LiveSearch {
  #ask;
  #show;
  #timer = 0;
  #running = null;

  /**
   * @param {(signal: AbortSignal) => Promise<unknown>} ask does one search
   * @param {{busy: (yes: boolean) => void, found: (answer: unknown) => void, trouble: (error: Error) => void}} show
   */
  constructor(ask, show) {
    this.#ask = ask;
    this.#show = show;
  }

  /** Search after a short pause. */
  soon() {
    this.#in(PAUSE_MS);
  }

  /** A stroke begins: cancel the search that waits for the pause. One that is running may still be shown. */
  hold() {
    clearTimeout(this.#timer);
  }

  /** Cancel everything: what waits, and what is running. */
  stop() {
    this.hold();
    this.#running?.abort();
    this.#running = null;
    this.#show.busy(false);
  }

  /** Search now. An older search is cancelled, and its answer is not shown. */
  async now() {
    this.stop();
    const ours = new AbortController();
    this.#running = ours;
    this.#show.busy(true);
    try {
      const answer = await this.#ask(ours.signal);
      if (!ours.signal.aborted) {
        this.#show.found(answer);
      }
    } catch (error) {
      if (!ours.signal.aborted) {
        this.#show.trouble(error);
        if (error.retryAfter > 0) {
          this.#in(error.retryAfter * 1000);
        }
      }
    } finally {
      if (this.#running === ours) {
        this.#running = null;
        this.#show.busy(false);
      }
    }
  }

  #in(milliseconds) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.now(), milliseconds);
  }
}
