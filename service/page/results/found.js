/** The results of a search with their status, or a message in their place. */

import * as api from "../shared/api.js";
import { asNamed } from "../drawing/things.js";
import { byId } from "../shared/dom.js";
import { ENDS, fitRemark, goesOn, missingParts, noPhotos, shownCount, took, trouble, waitingFor } from "../shared/words.js";
import { Chosen } from "./chosen.js";
import { alone, createGrid, numbered, without } from "./results.js";

const WAIT_MS = 1500;
const AHEAD = "600px";

/** `react.changed` is called when something else is shown, `react.away` when the server could not answer but may do so later. */
export function createFound(react, notice, parts, viewer) {
  const box = byId("found");
  const chosen = new Chosen();
  const seen = new Set();
  let shards = 0;
  const missing = new Set();
  let asked = null;
  let shown = false;
  let order = "";
  let of = 0;
  let liked = 0;
  let waiting = 0;

  const results = createGrid({
    open: (photos, place) => (chosen.on ? chosen.turn(photos[place]) : viewer.open(photos, place, asked.params.view === "photos" ? of || best().length : 0)),
    mark: (button, photo) => chosen.mark(button, photo),
    lost: () => byId("parts-undo").focus({ preventScroll: true }),
  }, parts);
  const pages = createPages(async (page, signal) => {
    const answer = await api.search(asked.snapshot.body, { ...asked.params, ...page }, signal);
    if (!signal.aborted) { miss(answer); }
    return answer;
  }, add);

  function busy(yes) {
    clearTimeout(waiting);
    byId("waiting").textContent = "";
    waiting = yes ? setTimeout(() => void explainWait(), WAIT_MS) : 0;
    box.classList.toggle("busy", yes);
    // The answer to a stroke is followed by a better one when the pen rests.
    byId("results").setAttribute("aria-busy", String(yes || Boolean(shown && asked.params.quality)));
    if (yes) { pages.stop(); }
  }

  async function explainWait() {
    const search = waiting;
    const info = await api.info().catch(() => null);
    if (info && search === waiting) { byId("waiting").textContent = waitingFor(info); }
  }

  /** Show the answer of a search with `params` of a `snapshot` of the query; if groups `stay`, in the places that they have. */
  function show(answer, { snapshot, params }, stay) {
    // Later pages have the view of this one, even if the server chose it.
    const taken = { ...params, view: answer.groups ? "groups" : "photos" };
    const same = asked?.params.view === taken.view;
    asked = { snapshot, params: taken };
    viewer.forget();
    seen.clear();
    liked = 0;
    const groups = sought(answer, 1);
    results.show(groups, Boolean(answer.groups) && stay && same);
    parts.know(answer.groups?.map(({ best: one }) => one) ?? answer.results);
    const dated = answer.method === "date";
    pages.start(answer, dated ? { ...ENDS.photos, end: "These are all the photos." } : ENDS[taken.view]);
    box.classList.remove("stale");
    if (!groups.length) {
      say(...noPhotos(parts.none(), parts.filtered()));
      miss(answer);
      return;
    }
    notice.hide();
    missing.clear();
    miss(answer);
    byId("fit-remark").textContent = fitRemark({ ...answer, things: asNamed(answer.things ?? [], snapshot.strokes) }, taken.text[0]);
    shown = true;
    order = dated ? "newest first" : answer.sketch_fits === false ? "" : "best first";
    chosen.offer(true);
    showCount(answer);
    byId("timings").textContent = took(answer);
    if (answer.view || !answer.groups) { byId("status").title = answer.groups ? "Look-alikes are in one stack, since none is far ahead. View shows each photo." : ""; }
    react.changed();
  }

  function fail(error) {
    results.show([]);
    const locked = error.status === 401;
    const ended = error instanceof api.SignedOut;
    const [title, text] = trouble(error);
    const later = error.retryAfter > 0;
    say(title, later ? goesOn(error.retryAfter) : text, undefined, locked ? "key" : ended ? "login" : undefined);
    if (locked) {
      byId("key").focus();
    } else if (later || ended || error instanceof api.Away || error.status === 503) {
      react.away(!later);
    }
  }

  function say(...message) {
    notice.say(...message);
    clear();
  }

  function invite() {
    viewer.forget();
    results.show([]);
    box.classList.remove("stale");
    notice.invite();
    clear();
  }

  function clear() {
    shown = false;
    chosen.offer(false);
    byId("status").textContent = "";
    byId("timings").textContent = "";
    missing.clear();
    miss({});
    byId("fit-remark").textContent = "";
    pages.stop();
    react.changed();
  }

  /** Also show the parts of the collection that are missing in this answer. */
  function miss({ missing_shards: names = [] }) {
    names.forEach((name) => missing.add(name));
    const text = missing.size ? missingParts(missing.size, shards) : "";
    // Written only on change, so that a screen reader does not read the same sentence twice.
    if (byId("missing").textContent !== text) { byId("missing").textContent = text; }
  }

  /** Show the results of another page. Returns whether any of them is new. */
  function add(answer) {
    // A photo's rank is its place in the list: photos of clusters that are opened later come after those shown already.
    const rank = results.groups().length + 1;
    const fresh = sought(answer, rank);
    results.add(fresh);
    showCount(answer);
    return fresh.length > 0;
  }

  /** The groups of an answer, or its photos by themselves, without liked ones: nobody looks for these any more. */
  function sought({ groups, results: photos = [] }, rank) {
    liked += photos.filter(parts.likes).length;
    const rest = without(groups ?? alone(unseen(photos)), parts.likes).map((group, i) => ({ ...group, rank: rank + i }));
    return groups ? numbered(rest) : rest.map((one) => ({ ...one, best: { ...one.best, rank: one.rank } }));
  }

  /** The results that are not shown yet, not even as copies of others. */
  function unseen(photos) {
    const fresh = photos.filter(({ id }) => !seen.has(id));
    photos.forEach(({ id, copies = [] }) => [id, ...copies].forEach((photo) => seen.add(photo)));
    return fresh;
  }

  /** Say how many are shown, of as many as an answer says. */
  function showCount(answer) {
    if (answer) { of = answer.next === null ? 0 : answer.photos; }
    const ordered = results.ordered();
    byId("status").textContent = shownCount(best().length, of, asked.params.view, ordered ? order : "", liked > 0);
    box.classList.toggle("unordered", !ordered);
  }

  const best = () => results.groups().map((group) => group.best);

  return {
    /** The query of the results shown; null if a message is shown. */
    asked: () => (shown ? asked : null),
    best,
    know: (info) => (shards = info.shards?.length ?? 0),
    age: () => box.classList.add("stale"),
    /** Put the best first, after groups have kept their places. */
    order() {
      if (shown && !results.ordered()) {
        results.order();
        showCount();
      }
    },
    busy, show, fail, say, invite,
  };
}

/** More results, requested when the person scrolls to the end: `ask` searches with the parameters of a page; `show` gets the answer, and returns whether any result is new. */
function createPages(ask, show) {
  const [button, note] = [byId("more"), byId("more-note")];
  const question = new api.Latest();
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
