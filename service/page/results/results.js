/** The grid of photos found, or of groups of photos. */

import { byId } from "../shared/dom.js";
import { Stack } from "./stack.js";
import { identity, Tile } from "./tile.js";

const MOVE_MS = 300;

export const alone = (photos) => photos.map((best) => ({ rank: best.rank, size: 1, best, more: [] }));

/** These groups without the photos that are `unwanted`; one with no other is left out. */
export const without = (groups, unwanted) => groups.flatMap(({ size, best, more, others = [], ...group }) => {
  const all = [best, ...more];
  const [first, ...rest] = all.filter((photo) => !unwanted(photo));
  const further = others.filter((id) => !unwanted({ id }));
  const left = size - (all.length - 1 - rest.length) - (others.length - further.length);
  return first ? [{ ...group, size: left, best: first, more: rest, others: further }] : [];
});

/** The groups of an answer, each photo with the number of its group as `group`, which people see. */
export const numbered = (groups) => groups.map(({ best, more, ...group }) => {
  const known = (photo) => ({ ...photo, group: group.rank });
  return { ...group, best: known(best), more: more.map(known) };
});

/** `react.open` gets all photos in sight, and the place of the chosen one; `react.mark` is Chosen.mark; `react.lost` means that the focus is gone. */
export function createGrid({ open, mark, lost }, parts) {
  const list = byId("results");
  let stacks = [];
  // By identity(). Most photos of an answer are also in the next one; they must not load again or flicker.
  let tiles = new Map();
  const actions = {
    open: (result) => {
      const photos = stacks.flatMap((stack) => stack.photos);
      open(photos, photos.indexOf(result));
    },
    mark,
  };

  document.addEventListener("keydown", (event) => {
    const elsewhere = event.defaultPrevented || document.querySelector("dialog[open]");
    if (event.key === "Escape" && !elsewhere) {
      const opened = stacks.flatMap((stack) => stack.opened);
      const one = opened.findLast((some) => some.contains(document.activeElement)) ?? opened.at(-1);
      one?.close();
    }
  });

  function tile(result) {
    const photo = identity(result);
    if (!tiles.has(photo)) { tiles.set(photo, new Tile(result, actions, parts)); }
    return tiles.get(photo);
  }

  /** The groups shown, in their places. A photo found by itself is a group of one. */
  const groups = () => stacks.map(({ group }) => group);

  /** Show these groups; if they `stay`, those shown already keep their places. What moves is seen to move, unless nobody wants that. */
  function show(all, stay = false) {
    const still = stay || matchMedia("(prefers-reduced-motion: reduce)").matches;
    const places = still ? [] : [...list.querySelectorAll(".tile")].map((one) => [one, one.getBoundingClientRect()]);
    const before = stacks;
    const focused = list.contains(document.activeElement) ? document.activeElement : null;
    stacks = arrange(all, groups(), stay).map(({ group, from }) => (before[from] ?? new Stack(tile)).update(group));
    settle();
    places.forEach(([one, from]) => move(one, from));
    if (focused?.isConnected) {
      focused.focus({ preventScroll: true });
    } else if (focused) {
      lost();
    }
  }

  function settle() {
    stacks.forEach(({ element }, place) => {
      if (list.children[place] !== element) { list.insertBefore(element, list.children[place] ?? null); }
    });
    while (list.childElementCount > stacks.length) { list.lastElementChild.remove(); }
    const known = new Set(groups().flatMap(({ best, more }) => [best, ...more]).map(identity));
    tiles = new Map([...tiles].filter(([photo]) => known.has(photo)));
  }

  return {
    groups, show,
    /** Whether the best is first: groups that keep their places may stand in another order. */
    ordered: () => groups().every(({ rank }, i, all) => !i || all[i - 1].rank < rank),
    order: () => show(groups().sort((a, b) => a.rank - b.rank)),
    add(more) {
      const further = more.map((group) => new Stack(tile).update(group));
      stacks.push(...further);
      list.append(...further.map(({ element }) => element));
    },
  };
}

function move(tile, from) {
  const to = tile.getBoundingClientRect();
  const [x, y] = [from.left - to.left, from.top - to.top];
  if (tile.isConnected && (x || y)) {
    tile.animate({ translate: [`${x}px ${y}px`, "0 0"] }, { duration: MOVE_MS, easing: "ease-in-out" });
  }
}

/**
 * The groups in the order in which they are shown: best first, or if they `stay` in the places that they have; each with the place
 * `from` (from 0) that it had, or -1. A group is the same as before if the best photo of one is among the photos of the other.
 */
export function arrange(groups, before, stay) {
  const found = matched(groups, before);
  const order = groups.map((group, i) => ({ group, from: found[i] }));
  if (!stay) { return order; }
  const others = order.filter(({ from }) => from < 0 || from >= order.length);
  return order.map((_, place) => order.find(({ from }) => from === place) ?? others.shift());
}

/** For each group the place of the one that it was before, or -1. No two were the same one. */
function matched(groups, before) {
  const all = new Map(before.flatMap(({ best: first, more }, place) => [first, ...more].map((photo) => [identity(photo), place])));
  const best = new Map(before.map((group, place) => [identity(group.best), place]));
  const found = groups.map((group) => best.get(identity(group.best)) ?? -1);
  const taken = new Set(found);
  return found.map((place, i) => {
    if (place >= 0) { return place; }
    const { best: first, more } = groups[i];
    const same = [all.get(identity(first)), ...more.map((photo) => best.get(identity(photo)))];
    const free = same.find((one) => one !== undefined && !taken.has(one)) ?? -1;
    taken.add(free);
    return free;
  });
}
