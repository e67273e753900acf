/** When the server is asked: whether it can answer searches, until it can and no build is running; and for the photos. */

import * as api from "./shared/api.js";
import { building } from "./shared/words.js";

const CHECK_AGAIN_MS = 3000;

/** `react.told` gets each answer of /info, `ready` the first with which searches can be answered or a build has ended, `unready` those before. */
export function watchServer(react) {
  const server = { ready: false, limits: null, check, checkLater, rest };
  let timer = 0;
  // Whether a build is running, or has just ended: the server uses its result a moment later.
  let busy = false;
  let ended = false;

  async function check() {
    clearTimeout(timer);
    let info;
    try {
      info = await api.info();
    } catch (error) {
      server.ready = false;
      react.trouble(error);
      return;
    }
    server.limits = info.limits;
    react.told(info);
    const [wasBusy, hadEnded] = [busy, ended];
    busy = Boolean(building(info.build));
    ended = wasBusy && !busy;
    if (!info.ready || busy || ended) { checkLater(); }
    const again = info.ready && (!server.ready || (hadEnded && !busy));
    server.ready = info.ready;
    if (!info.ready) { react.unready(info); } else if (again) { react.ready(info); }
  }

  /** `gone`: it could not be searched; as soon as it can, the search goes on. */
  function checkLater(gone = false) {
    server.ready &&= !gone;
    clearTimeout(timer);
    timer = setTimeout(check, CHECK_AGAIN_MS);
  }

  /** Cancel the next check, unless a build is running: the server has just answered. */
  function rest() {
    if (!busy && !ended) { clearTimeout(timer); }
  }

  return server;
}

// Long enough to begin the next stroke of the same shape. A server that answers as quickly is asked at once.
const PAUSE_MS = 200;

/**
 * Decides when to search: soon after a stroke, one search at a time; only the latest one is shown. `ask` does one search until a
 * signal; `show` is told whether it is `busy`, what is `found`, and a `trouble`.
 */
export function createLiveSearch(ask, show) {
  const question = new api.Latest();
  let timer = 0;
  let took = Infinity;

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
    const asked = performance.now();
    await question.ask(ask, show.found, (error) => {
      show.trouble(error);
      if (error.retryAfter > 0) { waitFor(error.retryAfter * 1000); }
    });
    if (question.busy) { return; }
    took = performance.now() - asked;
    show.busy(false);
  }

  return { hold, stop, now, soon: () => waitFor(took <= PAUSE_MS ? 0 : PAUSE_MS) };
}
