/** Where kinds stand: those that were there before keep their places, so that the page does not flicker while one draws. */

import { identity } from "./tile.js";

/**
 * The kinds in the order in which they are shown, each with the place (from 0) of the kind that it was before.
 *
 * A kind is the same as before if the best photo of one is among the photos of the other.
 *
 * @param {object[]} kinds best first
 * @param {object[]} before the kinds that were shown, in their places
 * @param {boolean} stay whether kinds keep their places; else they are in their own order
 * @returns {{kind: object, from: number}[]} from: -1 for a kind that was not there
 */
export function arrange(kinds, before, stay) {
  const found = matched(kinds, before);
  const order = kinds.map((kind, i) => ({ kind, from: found[i] }));
  if (!stay) {
    return order;
  }
  const places = new Array(order.length).fill(null);
  const others = order.filter((one) => {
    const keeps = one.from >= 0 && one.from < places.length;
    if (keeps) {
      places[one.from] = one;
    }
    return !keeps;
  });
  return places.map((one) => one ?? others.shift());
}

/** Whether these kinds are in their own order, best first. */
export function inOrder(kinds) {
  return kinds.every(({ rank }, i) => !i || kinds[i - 1].rank < rank);
}

/** For each kind the place of the one that it was before, or -1. No two were the same one. */
function matched(kinds, before) {
  // Of each photo shown: the place of its kind.
  const all = new Map();
  const best = new Map();
  before.forEach((kind, place) => {
    [kind.best, ...kind.more].forEach((photo) => all.set(identity(photo), place));
    best.set(identity(kind.best), place);
  });
  const found = kinds.map((kind) => best.get(identity(kind.best)) ?? -1);
  const taken = new Set(found);
  return found.map((place, i) => {
    if (place >= 0) {
      return place;
    }
    const { best: first, more } = kinds[i];
    const same = [all.get(identity(first)), ...more.map((photo) => best.get(identity(photo)))];
    const free = same.find((one) => one !== undefined && !taken.has(one)) ?? -1;
    taken.add(free);
    return free;
  });
}
