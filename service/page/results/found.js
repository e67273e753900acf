/** The results of a search with their status, or a message in their place. */

import * as api from "../shared/api.js";
import { byId } from "../shared/dom.js";
import { ENDS, fitRemark, goesOn, missingParts, noPhotos, shownCount, took, trouble, waitingFor } from "../shared/words.js";
import { Chosen } from "./chosen.js";
import { Pages } from "./pages.js";
import { alone, numbered, Results } from "./results.js";

// A search that takes longer says what it waits for.
const WAIT_MS = 1500;

export class ResultsView extends EventTarget {
  #notice;
  #parts;
  #viewer;
  #box = byId("found");
  #results;
  #chosen = new Chosen();
  // Parts of a collection on many machines: their number, and those that did not answer.
  #shards = 0;
  #missing = new Set();
  #pages;
  // The query of the results shown. Later pages use the same.
  #asked = null;
  // The ids of the photos shown as results, and of their copies.
  #seen = new Set();
  #shown = false;
  #order = "";
  // How many photos there are to show, if not all are shown.
  #of = 0;
  #waiting = 0;

  /** Events: "change" when something else is shown; "away" when the server could not answer but may do so later. */
  constructor(notice, parts, viewer) {
    super();
    this.#notice = notice;
    this.#parts = parts;
    this.#viewer = viewer;
    const show = (photos, place) => viewer.open(photos, place, this.#asked.params.view === "photos");
    const open = (photos, place) => (this.#chosen.on ? this.#chosen.turn(photos[place]) : show(photos, place));
    const mark = (button, photo) => this.#chosen.mark(button, photo);
    const lost = () => byId("parts-undo").focus({ preventScroll: true });
    this.#results = new Results({ open, mark, lost }, parts);
    this.#pages = new Pages((page, signal) => this.#page(page, signal), (answer) => this.#add(answer));
  }

  /** The query of the results shown; null if a message is shown. */
  get asked() {
    return this.#shown ? this.#asked : null;
  }

  /** The best photo of each group shown; a single photo is a group of one. */
  get best() {
    return this.#results.groups.map(({ best }) => best);
  }

  know(info) {
    this.#shards = info.shards?.length ?? 0;
  }

  busy(yes) {
    clearTimeout(this.#waiting);
    byId("waiting").textContent = "";
    this.#waiting = yes ? setTimeout(() => void this.#tellWait(), WAIT_MS) : 0;
    this.#box.classList.toggle("busy", yes);
    // The answer to a stroke is followed by a better one when the pen rests.
    byId("results").setAttribute("aria-busy", String(yes || Boolean(this.asked?.params.variants)));
    if (yes) {
      this.#pages.stop();
    }
  }

  async #tellWait() {
    const waiting = this.#waiting;
    const info = await api.info().catch(() => null);
    if (info && waiting === this.#waiting) {
      byId("waiting").textContent = waitingFor(info);
    }
  }

  age() {
    this.#box.classList.add("stale");
  }

  /**
   * Show the answer of a search with `params` of a `snapshot` of the query, whose blob is null where nothing is drawn.
   * If groups `stay`, those that are shown already keep their places.
   */
  show(answer, { snapshot, params }, stay) {
    // Later pages have the view of this one, even if the server chose it.
    const taken = { ...params, view: answer.groups ? "groups" : "photos" };
    const same = this.#asked?.params.view === taken.view;
    this.#asked = { snapshot, params: taken };
    this.#viewer.forget();
    this.#seen.clear();
    const groups = answer.groups ? numbered(answer.groups) : alone(this.#unseen(answer.results));
    this.#results.show(groups, Boolean(answer.groups) && stay && same);
    this.#parts.know(this.best);
    const end = answer.method === "date" ? { ...ENDS.photos, end: "These are all the photos." } : ENDS[taken.view];
    this.#pages.start(answer, end);
    this.#box.classList.remove("stale");
    if (!this.best.length) {
      this.say(...noPhotos(this.#parts));
      this.#miss(answer);
      return;
    }
    this.#notice.hide();
    this.#missing.clear();
    this.#miss(answer);
    byId("fit-remark").textContent = fitRemark(answer, taken.text[0]);
    this.#shown = true;
    this.#order = answer.method === "date" ? "newest first" : answer.sketch_fits === false ? "" : "best first";
    this.#chosen.offer(true);
    this.#count(answer);
    byId("took").hidden = false;
    byId("timings").textContent = took(answer);
    this.dispatchEvent(new Event("change"));
  }

  fail(error) {
    this.#results.show([]);
    const locked = error.status === 401;
    const [title, text] = trouble(error);
    const later = error.retryAfter > 0;
    this.say(title, later ? goesOn(error.retryAfter) : text, undefined, locked ? "key" : undefined);
    if (locked) {
      byId("key").focus();
    } else if (later || error instanceof api.Away || error.status === 503) {
      this.dispatchEvent(new Event("away"));
    }
  }

  say(...said) {
    this.#notice.say(...said);
    this.#clear();
  }

  invite() {
    this.#viewer.forget();
    this.#results.show([]);
    this.#box.classList.remove("stale");
    this.#notice.invite();
    this.#clear();
  }

  #clear() {
    this.#shown = false;
    this.#chosen.offer(false);
    byId("status").textContent = "";
    byId("took").hidden = true;
    this.#missing.clear();
    this.#miss({});
    byId("fit-remark").textContent = "";
    this.#pages.stop();
    this.dispatchEvent(new Event("change"));
  }

  async #page(page, signal) {
    const { snapshot, params } = this.#asked;
    const answer = await api.search(snapshot.body, { ...params, ...page }, signal);
    if (!signal.aborted) {
      this.#miss(answer);
    }
    return answer;
  }

  /** Also show the parts of the collection that are missing in this answer. */
  #miss({ missing_shards: names = [] }) {
    names.forEach((name) => this.#missing.add(name));
    const { size } = this.#missing;
    const text = size ? missingParts(size, this.#shards) : "";
    // Written only on change, so that a screen reader does not read the same sentence twice.
    if (byId("missing").textContent !== text) {
      byId("missing").textContent = text;
    }
  }

  /** Show the results of another page. Returns whether any of them is new. */
  #add(answer) {
    const { groups, results } = answer;
    // A photo's rank is its place in the list: photos of clusters that are opened later come after those shown already.
    const rank = this.#results.groups.length + 1;
    const fresh = groups ? numbered(groups) : alone(this.#unseen(results).map((one, i) => ({ ...one, rank: rank + i })));
    this.#results.add(fresh);
    this.#count(answer);
    return fresh.length > 0;
  }

  #unseen(results) {
    const unseen = results.filter(({ id }) => !this.#seen.has(id));
    results.forEach(({ id, copies = [] }) => [id, ...copies].forEach((photo) => this.#seen.add(photo)));
    return unseen;
  }

  /** Say how many are shown, of how many. */
  #count({ next, photos }) {
    this.#of = next === null ? 0 : photos;
    this.#tellOrder();
  }

  #tellOrder() {
    const { groups, ordered } = this.#results;
    byId("status").textContent = shownCount(groups.length, this.#of, this.#asked.params.view, ordered ? this.#order : "");
    this.#box.classList.toggle("unordered", !ordered);
  }

  /** Put the best first, after groups have kept their places. */
  order() {
    if (this.#shown && !this.#results.ordered) {
      this.#results.order();
      this.#tellOrder();
    }
  }
}
