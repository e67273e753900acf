/** Asks one question at a time: what an older one is answered, or how it fails, counts no more. */
export class Latest {
  #running = null;

  get busy() {
    return this.#running !== null;
  }

  stop() {
    this.#running?.abort();
    this.#running = null;
  }

  /** Ask; then `take` gets the answer, or `fail` the error. The question's signal is aborted once it counts no more. */
  async ask(question, take, fail) {
    this.stop();
    this.#running = new AbortController();
    const { signal } = this.#running;
    try {
      const answer = await question(signal);
      signal.throwIfAborted();
      this.#running = null;
      take(answer);
    } catch (error) {
      if (!signal.aborted) {
        this.#running = null;
        fail(error);
      }
    }
  }
}
