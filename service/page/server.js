/** Whether the server can answer searches: checked until it can, and until no build is running. */

import * as api from "./shared/api.js";
import { building } from "./shared/words.js";

const CHECK_AGAIN_MS = 3000;

/**
 * `react.told` gets each answer of /info; `ready` the first with which the server can answer searches, and the first
 * after a build; `unready` those while it cannot; `trouble` the error when it does not answer.
 */
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
    if (!info.ready) {
      react.unready(info);
    } else if (again) {
      react.ready(info);
    }
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
