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

  /**
   * @template T
   * @param {(signal: AbortSignal) => Promise<T>} question its signal is aborted when it counts no more
   * @param {(answer: T) => void} take
   * @param {(error: Error) => void} fail
   */
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
