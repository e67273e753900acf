/** The things of the drawing: their outlines on the paper, and the line that describes the query. */

import {
  assign, coloursOf, divided, dot, halved, joined, named, piecesOf, seenThing, settled, strokesOf, thingAt, thingsOf, TINTS, withPieces,
} from "../drawing/things.js";
import { element, byId, refill } from "../shared/dom.js";
import { count, guessed, sure, SURE, thingNames, understood } from "../shared/words.js";
import { placeLabels } from "./labels.js";

const SWITCHES = {
  apart: "Search for each thing on its own, not for the drawing as one",
  places: "Match where each thing stands",
  colours: "Match the colours of things",
  writing: "Leave out writing, marks and construction lines beside the drawing",
};
const ALL = /** @type {Record<Switch, boolean>} */ ({ apart: true, places: true, colours: true, writing: true });
const OFF = "Does not count: this search compares whole photos";

/** @param {Paper} paper @param {Parts} parts @param {Word} word completes words @param {DrawnReact} react */
export function createDrawn(paper, parts, word, react) {
  const list = byId("things");
  /** What each thing was guessed to be, by its number. @type {Map<number, Guess>} */
  let guesses = new Map();
  /** What each may be, for a person to choose from. @type {Map<number, string[]>} */
  let offered = new Map();
  /** How sure each is, 1 if somebody said it, below 0 if even the best photo is improbable. @type {Map<number, number>} */
  let sureness = new Map();
  /** The thing that the line above the photos asks for, if any. @type {Thing | undefined} */
  let asked;
  /** The things that the server saw in a picture that was not drawn here. @type {Thing[]} */
  let seen = [];
  /** What was sorted by hand since the last answer: words, each with what gives its thing another one. @type {Typed[]} */
  let typed = [];
  // Whether the things, their places and colours are to count, and whether they do: not if the search compares no regions of photos.
  let wanted = ALL;
  let counts = ALL;
  let counted = false;
  let leftOut = /** @type {Answer["left_out"]} */ ([]);
  let shown = /** @type {Thing[]} */ ([]);
  let [showing, placing] = [0, 0];
  let sorted = Promise.resolve();

  for (const name of /** @type {Switch[]} */ (Object.keys(ALL))) {
    byId(name).addEventListener("change", () => {
      wanted = { ...wanted, [name]: byId(name).checked };
      react.changed();
    });
  }
  new ResizeObserver(placeSoon).observe(list.parentElement);
  paper.lieUnder(list);

  // A file or a photo is searched with as a whole.
  const pieces = () => (byId("picture").hidden && paper.marks[0]?.as !== "photo" ? piecesOf(paper.marks) : []);
  const things = () => thingsOf(pieces());
  const sorting = createSorting(paper, { shown: () => shown, things, sort });

  /** Divide, join or name some marks by a function of things.js, as a step that Back takes back. Nothing else is divided anew. @type {Sort} */
  function sort(...how) { return (sorted = sortNow(...how)); }

  /** @type {Sort} */
  async function sortNow(by, some, name) {
    const places = some.map((mark) => pieces().indexOf(mark));
    word.unknown(null);
    await react.step();
    typed.push({ name, rename: (/** @type {string} */ other) => sort(named, places.map((place) => pieces()[place]), other) });
    const before = pieces();
    const all = settled(before);
    paper.replace(withPieces(paper.marks, by(all, places.map((place) => all[place]), name)));
    // While somebody types, labels stay: they are of the new marks from now on.
    shown.forEach((one) => (one.marks = one.marks.map((mark) => pieces()[before.indexOf(mark)])));
  }

  /** The things of a search: those drawn here, or those that the server saw. @param {Thing[]} drawn */
  const searched = (drawn) => (drawn.length ? drawn : seen);

  /** Whether something is a thing of its own on the paper: over an image, nobody knows what belongs together. @param {Thing} thing */
  const separate = ({ marks }) => wanted.apart && marks !== undefined && marks[0].kind !== "image";

  /** Whether things have colours. Those that the server saw have none while colours do not count. @param {Thing[]} all */
  const inColour = (all) => all.some((thing) => namesOf(thing).length || (!wanted.colours && !thing.marks?.[0].colour));

  /** What a thing is: as a person says, or else by its guess if that is sure. @param {Thing} thing */
  const said = ({ id, marks = [] }) => marks.find((mark) => mark.word)?.word ?? sure(guesses.get(id));

  function show() {
    const drawn = things();
    const all = seen.length ? seen : drawn;
    const several = all.length > 1;
    ask(wanted.apart || !drawn.length ? all : [{ id: 0, colours: [] }]);
    outline(drawn.every(separate) ? drawn : []);
    const coloured = inColour(all);
    sorting.refresh();
    offer("apart", several || !wanted.apart);
    // The place of a single thing is worth a line only if an answer says that it counts, or somebody that it does not.
    const placed = several || (all.length === 1 && (counted || !wanted.places));
    offer("places", placed);
    offer("colours", coloured);
    const written = leftOut.length > 0 || !wanted.writing;
    const frames = wanted.writing ? leftOut.map((ends) => ends.map((share) => `${100 * share}%`)) : [];
    byId("left-out").replaceChildren(...frames.map(([left, top, right, bottom]) =>
      element("i", { style: `left: ${left}; top: ${top}; width: calc(${right} - ${left}); height: calc(${bottom} - ${top})` })));
    offer("writing", written);
    const described = wanted.apart && names(all).map((name) => name.replaceAll(" ", "\u00a0")).join(", ");
    parts.describe(placed || coloured || written || !wanted.apart ? described || "Drawing" : "");
  }

  /** Show a switch, off if what it is for does not count. @type {(name: Switch, yes: boolean) => void} */
  function offer(name, yes) {
    Object.assign(byId(name), { checked: counts[name] && wanted[name], disabled: !counts[name] });
    byId(`${name}-switch`).hidden = !yes;
    byId(`${name}-switch`).title = counts[name] ? SWITCHES[name] : OFF;
  }

  function names(/** @type {Thing[]} */ all) {
    const known = thingNames(all.map((thing) => [said(thing) ?? guessed(guesses.get(thing.id)), namesOf(thing)]));
    const own = known.filter(Boolean);
    const rest = all.length - own.length;
    return own.length ? [...own, ...(rest ? [count(rest, "more thing")] : [])] : [rest > 1 ? `${rest} things` : ""];
  }

  function outline(/** @type {Thing[]} */ all) {
    if (!typing()) {
      const before = new Map(shown.map(({ id }, i) => [id, list.children[i].firstElementChild.style]));
      shown = all;
      refill(list, ...all.map((thing) => item(thing, before.get(thing.id))));
      placeSoon();
    }
  }

  /** A thing's outline, with what it is, which can be typed over. @type {(thing: Thing, style?: CSSStyleDeclaration) => HTMLElement} */
  function item(thing, style) {
    const { id, box } = thing;
    const label = element("p", { style: style?.cssText ?? "" });
    const own = field(thing, said(thing) ?? "", guesses.get(id), label);
    label.append(own, element("span", { className: "offers", role: "group", ariaLabel: "What it may be" }, ...offers(thing)));
    const made = element("li", { className: id === asked?.id ? "asked" : "" }, label);
    const corners = [paper.shares({ x: box.left, y: box.top }), paper.shares({ x: box.right, y: box.bottom })];
    const [left, top, right, bottom] = corners.flatMap(({ x, y }) => [x, y]).map((share) => 100 * Math.min(1, Math.max(0, share)));
    made.style.setProperty("--tint", TINTS[id % TINTS.length]);
    Object.assign(made.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
    return made;
  }

  /** @type {(thing: Thing, known: string, guess: Guess, label: HTMLElement) => HTMLElement} */
  function field(thing, known, guess, label) {
    const placeholder = guessed(guess) || "What is this?";
    const made = element("input", { type: "text", value: known, placeholder, size: (known || placeholder).length, maxLength: 100, ariaLabel: "What this thing is", autocomplete: "off" });
    made.setAttribute("list", "words");
    made.addEventListener("focus", () => { sorting.take(thing); made.select(); });
    // What was guessed is typed over: a first press puts no cursor, which would come late on a busy machine.
    made.addEventListener("mousedown", (event) => { if (document.activeElement !== made) { event.preventDefault(); made.focus(); } });
    // A tap offers words; only a second one, or "Something else", calls the keyboard of a phone, which hides half of the page.
    made.addEventListener("pointerdown", ({ pointerType }) => {
      made.inputMode = pointerType === "touch" && document.activeElement !== made ? "none" : "text";
    });
    made.addEventListener("input", () => {
      label.classList.add("typed");
      word.complete(made.value.trim());
    });
    const take = () => { made.blur(); void sort(named, thing.marks, made.value.trim()); };
    made.addEventListener("change", take);
    made.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || made.value !== known) { return; }
      event.preventDefault();
      // The browser reports no change if the guess itself is typed.
      label.matches(".typed") && known ? take() : made.nextElementSibling.firstElementChild.focus();
    });
    label.addEventListener("focusout", ({ relatedTarget }) => {
      const pressed = /** @type {HTMLElement} */ (relatedTarget);
      if (label.contains(pressed)) { return; }
      sorting.leave(pressed);
      if (made.value === known && !list.contains(pressed)) { show(); }
    });
    return made;
  }

  /** Buttons to name a thing by its guesses or by typing, to take it apart, and to make it part of another one. @type {(thing: Thing) => HTMLElement[]} */
  function offers(thing) {
    const own = separate(thing);
    const guessed = (offered.get(thing.id) ?? []).filter((one) => one !== thing.marks?.[0].word);
    const deeds = guessed.map((one) => /** @type {[string, () => void]} */ ([one, () => (own ? void sort(named, thing.marks, one) : word.take(one))]));
    if (own) { deeds.push(["Something else\u2026", () => typeIn(shown.findIndex(({ id }) => id === thing.id))]); }
    if (own && divided(thing)) { deeds.push(["Its two parts", sorting.split]); }
    if (own && shown.length > 1) { deeds.push(["Part of another thing", sorting.join]); }
    return deeds.map(([textContent, deed]) => {
      const onclick = () => {
        document.activeElement.blur();
        if (own) { sorting.take(thing); }
        deed();
      };
      return element("button", { type: "button", textContent, onclick, onmousedown: (/** @type {MouseEvent} */ event) => event.preventDefault() });
    });
  }

  /** Have a person type what this thing is. @param {number} place */
  function typeIn(place) {
    const label = list.children[place].firstElementChild;
    label.classList.add("typed");
    label.firstElementChild.inputMode = "text";
    label.firstElementChild.focus();
  }

  /** Say what was understood, and ask what the least sure thing is, if that is in doubt. @param {Thing[]} all */
  function ask(all) {
    const open = all.filter(({ id, marks }) => offered.has(id) && !marks?.[0].word);
    asked = open.filter(({ id }) => sureness.get(id) < SURE).sort((a, b) => sureness.get(a.id) - sureness.get(b.id))[0];
    const nameOf = (/** @type {Thing} */ one) => thingNames([[said(one) ?? guesses.get(one.id)?.word, namesOf(one)]])[0];
    byId("seen-said").textContent = asked ? understood(all.map((one) => [nameOf(one), one !== asked && said(one) !== undefined])) : "";
    byId("guesses").replaceChildren(...(asked ? offers(asked).slice(0, 5) : []));
  }

  /** Place the labels once the browser has shown the page, so that it need not lay it out for that. */
  function placeSoon() {
    cancelAnimationFrame(placing);
    placing = requestAnimationFrame(() => setTimeout(place));
  }

  /** Put each label where it hides least; none while one is typed in, or something drawn. */
  function place() {
    const sheet = list.parentElement.getBoundingClientRect();
    const items = [...list.children];
    if (!items.length || typing() || paper.drawing) { return; }
    const boxes = items.map((one) => one.getBoundingClientRect()).map(({ left, top, right, bottom }) =>
      ({ left: left - sheet.left, top: top - sheet.top, right: right - sheet.left, bottom: bottom - sheet.top }));
    const labels = items.map(({ firstElementChild: { offsetWidth: width, offsetHeight: height } }, i) => ({ marks: shown[i].marks, box: boxes[i], width, height }));
    placeLabels(pieces(), paper.place, sheet.width, labels).forEach(({ left, top }, i) => {
      const [{ firstElementChild: label, clientLeft, clientTop }, own] = [items[i], boxes[i]];
      label.classList.toggle("low", top > sheet.height / 2);
      label.classList.toggle("late", left + labels[i].width / 2 > sheet.width / 2);
      Object.assign(label.style, { left: `${left - own.left - clientLeft}px`, top: `${top - own.top - clientTop}px` });
    });
  }

  return {
    /** Whether places and colours count, as parameters of a search with what is drawn. @param {Snapshot} snapshot */
    params({ blob, things: drawn }) {
      const all = searched(drawn);
      return {
        ...(blob && !wanted.apart ? { things: "one" } : {}),
        ...(all.length && !wanted.places ? { places: "no" } : {}),
        ...(inColour(all) && !wanted.colours ? { colours: "no" } : {}),
        ...(wanted.writing ? {} : { writing: "yes" }),
      };
    },
    /** Take what the things of a search are; `latest`: nothing has been drawn or typed since. @type {(snapshot: Snapshot, answer: Answer, latest: boolean) => void} */
    know({ marks, strokes, things: drawn }, answer, latest) {
      const found = answer.things ?? [];
      if (latest) { typed = []; }
      if (answer.ink) { dot(marks, answer.ink); }
      // Elsewhere on the paper, the same strokes may look less like it.
      const before = new Map(things().map(({ id, marks: own }) => [keyOf(own), guesses.get(id)]));
      // As one thing, what is drawn stays divided for later.
      if (wanted.apart) { assign(answer.ink ? strokesOf(piecesOf(marks)) : strokes, found); }
      seen = drawn.length || piecesOf(marks) !== marks ? [] : found.map(seenThing);
      const ids = seen.length ? seen.map(({ id }) => id) : found.length || !drawn.length ? [...(found.length ? found : [0]).keys()] : drawn.map(({ id }) => id);
      const whole = ids.length === 1 ? answer.guesses : [];
      const kept = new Map(things().map(({ id, marks: own }) => [id, before.get(keyOf(own))]));
      // What the words of the search say is known.
      const known = found.map(({ word: said, guess }) => (said ? { word: said, probability: 1 } : guess));
      guesses = new Map(ids.map((id, i) => [id, known[i] ?? whole[0] ?? kept.get(id)]));
      const listed = (/** @type {number} */ i) => found[i]?.guesses?.map((guess) => guess.word) ?? (ids.length === 1 ? [...whole.map((guess) => guess.word), ...(answer.perhaps ?? [])] : []);
      // The word beside a drawing without things says what it is.
      offered = new Map(answer.word_read && !found.length ? [] : ids.map((id, i) => [id, listed(i)]));
      const improbable = (answer.groups?.[0]?.best ?? answer.results[0])?.score < 0.5;
      sureness = new Map(ids.map((id, i) => [id, (guesses.get(id)?.probability ?? 0) - Number(!found[i]?.word && improbable) - Number(found[i]?.fits === false)]));
      const colouring = wanted.colours && inColour(searched(drawn));
      counted = answer.placed === true;
      // If all is left out, all is searched with.
      leftOut = (answer.left_out ?? []).filter(([left, top, right, bottom]) => right - left + bottom - top < 2);
      counts = { ...ALL, places: !wanted.places || counted, colours: !colouring || answer.region_grid !== undefined };
      show();
    },
    /** Ask nothing until there is an answer. */
    hush() {
      offered = new Map();
      ask([]);
    },
    /** Take away the word of a thing with which a message begins. @type {(message: string) => Typed | undefined} */
    dropWord(message) {
      const dropped = typed.find(({ name }) => message.startsWith(`${name}${message[0]}`, 1));
      // What was sorted after it stays.
      if (dropped && dropped === typed.at(-1)) { history.back(); } else { dropped?.rename(""); }
      typed = typed.filter((one) => one !== dropped);
      return dropped;
    },
    sorted: () => sorted,
    guesses: () => guesses,
    said: () => things().map((thing) => said(thing)).filter(Boolean),
    /** Let things, places and colours count again. */
    reset() {
      wanted = ALL;
      show();
    },
    forget() {
      seen = [];
      leftOut = [];
      sorting.forget();
      clearTimeout(showing);
      // A task of its own, so that the page is not busy for long.
      showing = setTimeout(show);
    },
  };
}

/** What a person said to be one thing, by its number and how much it is; a new object of what nobody did. @type {(marks: Mark[]) => string | object} */
const keyOf = ([{ told }, ...others]) => (told === undefined ? {} : `${told} ${others.length}`);

const typing = () => byId("things").contains(document.activeElement);

const namesOf = (/** @type {Thing} */ thing) => thing.colours ?? coloursOf(thing);

/** What is chosen of the drawing is sorted by hand. @param {Paper} paper @param {Sortable} drawn */
function createSorting(paper, { shown, things, sort }) {
  const [bar, list] = [byId("held"), byId("things")];
  /** Marks, or dots of an image. @type {Mark[]} */
  let held = [];
  let joining = false;

  paper.addEventListener("choose", () => hold(paper.chosen));
  list.addEventListener("click", press, true);
  list.addEventListener("keydown", (event) => (event.key === "Enter" ? press(event) : event.key === "Escape" && wait(false)), true);
  const deeds = { one: () => sort(joined, held), join, split: () => sort(halved, held), copy: () => paper.copy(), mirror: () => paper.mirror() };
  Object.entries(deeds).forEach(([name, deed]) => byId(`held-${name}`).addEventListener("click", () => void deed()));
  byId("remove").addEventListener("click", () => paper.remove());

  const among = (/** @type {Thing} */ { marks }) => marks.some((mark) => held.includes(mark));
  const others = () => shown().filter((thing) => !among(thing));

  function hold(/** @type {Mark[]} */ marks) {
    held = marks;
    const parts = things().filter(among);
    const whole = parts.length === 1 && parts[0].marks.length === held.length;
    const dots = Boolean(held[0]?.at);
    const unusable = { one: whole, join: !others().length, split: !whole || !divided(parts[0]), copy: dots, mirror: dots };
    Object.entries(unusable).forEach(([name, yes]) => (byId(`held-${name}`).hidden = yes));
    byId("remove").hidden = dots;
    bar.hidden = !held.length;
  }

  /** Join it with the only other thing; of several, with the one that is pressed next. */
  function join() {
    const all = others();
    all.length > 1 ? wait(true) : void sort(joined, [...held, ...all[0].marks]);
  }

  function wait(/** @type {boolean} */ yes) {
    joining = yes;
    list.classList.toggle("joining", yes);
    [...list.children].forEach((one, i) => one.classList.toggle("from", yes && among(shown()[i])));
    byId("hint").textContent = yes ? "Press what it belongs to." : "";
  }

  function press(/** @type {Event} */ event) {
    if (!joining) { return; }
    const target = /** @type {HTMLElement} */ (event.target);
    const place = [...list.children].findIndex((one) => one.contains(target));
    const other = shown()[place] ?? thingAt(shown(), paper.pointOf(/** @type {MouseEvent} */ (event)));
    event.stopPropagation();
    // A word that is being typed would stay.
    target.matches("input") && target.blur();
    wait(false);
    if (other && !among(other)) { void sort(joined, [...held, ...other.marks]); }
  }

  return {
    take(/** @type {Thing} */ { marks }) {
      if (joining) { return; }
      if (marks[0].at) { hold(marks); } else { paper.choose(marks); }
    },
    /** The label is left for what was `pressed`. @param {HTMLElement} [pressed] */
    leave(pressed) {
      if (joining || pressed?.closest("#held, #handles, #paper")) { return; }
      paper.choose([]);
    },
    ...deeds,
    refresh: () => hold(held),
    forget: () => wait(false),
  };
}
