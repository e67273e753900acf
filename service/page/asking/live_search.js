/** Decides when to search: shortly after a stroke, one search at a time; only the latest one is shown. */

import { Latest } from "../shared/api.js";

// Long enough to begin the next stroke of the same shape, short enough to feel immediate.
const PAUSE_MS = 200;

/** `ask` does one search until a signal; `show` is told whether it is `busy`, what is `found`, and a `trouble`. */
export function createLiveSearch(ask, show) {
  const question = new Latest();
  let timer = 0;

  /** A stroke begins: cancel the search that waits for the pause. One that is running may still be shown. */
  const hold = () => clearTimeout(timer);

  function waitFor(milliseconds) {
    hold();
    timer = setTimeout(now, milliseconds);
  }

  function stop() {
    hold();
    question.stop();
    show.busy(false);
  }

  async function now() {
    hold();
    show.busy(true);
    await question.ask(ask, show.found, (error) => {
      show.trouble(error);
      if (error.retryAfter > 0) { waitFor(error.retryAfter * 1000); }
    });
    if (!question.busy) { show.busy(false); }
  }

  return { hold, stop, now, soon: () => waitFor(PAUSE_MS) };
}
