/** More results: requests the next ones when the person scrolls to the end. */

import { byId } from "../shared/dom.js";
import { Latest } from "../shared/api.js";
import { trouble } from "../shared/words.js";

// How far below the screen the end may be when the next results are requested.
const AHEAD = "600px";

/** `ask` searches with the parameters of a page; `show` gets the answer, and returns whether any result is new. */
export function createPages(ask, show) {
  const [button, note] = [byId("more"), byId("more-note")];
  const question = new Latest();
  let next = null;
  let last = "";
  let near = false;

  // Nothing is requested before the first scroll: while drawing, people look only at the first photos.
  const look = () => near && window.scrollY > 0 && more();
  button.addEventListener("click", more);
  document.addEventListener("scroll", look, { passive: true });
  const observer = new IntersectionObserver(([{ isIntersecting }]) => {
    near = isIntersecting;
    look();
  }, { rootMargin: AHEAD });
  observer.observe(button);

  function more() {
    if (question.busy || button.hidden) { return; }
    note.textContent = "Looking for more\u2026";
    void question.ask((signal) => ask({ next }, signal), take, (error) => (note.textContent = trouble(error).join(": ")));
  }

  function take(answer) {
    const fresh = show(answer);
    offer(answer.next);
    if (near && (!fresh || window.scrollY > 0)) {
      // The observer reports changes only, and the button may have stayed in sight.
      requestAnimationFrame(() => near && more());
    }
  }

  function offer(page) {
    next = page;
    button.hidden = next === null;
    note.textContent = next === null ? last : "";
  }

  function stop() {
    question.stop();
    button.hidden = true;
    note.textContent = "";
  }

  /** Begin after the answer to another search. The button says `texts.more`; after the last results, `texts.end` is in its place. */
  function start(answer, texts) {
    stop();
    button.textContent = texts.more;
    last = texts.end;
    offer(answer.next);
  }

  return { start, stop };
}
