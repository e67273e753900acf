/** Where groups stand: those that were there before keep their places, so that the page does not flicker while one draws. */

import { identity } from "./tile.js";

/**
 * The groups in the order in which they are shown: their own, best first, or if they `stay` the places that they have.
 *
 * Each has the place `from` (from 0) of the group that it was before, or -1. A group is the same as before if the best
 * photo of one is among the photos of the other.
 */
export function arrange(groups, before, stay) {
  const found = matched(groups, before);
  const order = groups.map((group, i) => ({ group, from: found[i] }));
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

export function inOrder(groups) {
  return groups.every(({ rank }, i) => !i || groups[i - 1].rank < rank);
}

/** For each group the place of the one that it was before, or -1. No two were the same one. */
function matched(groups, before) {
  // Of each photo shown: the place of its group.
  const all = new Map();
  const best = new Map();
  before.forEach((group, place) => {
    [group.best, ...group.more].forEach((photo) => all.set(identity(photo), place));
    best.set(identity(group.best), place);
  });
  const found = groups.map((group) => best.get(identity(group.best)) ?? -1);
  const taken = new Set(found);
  return found.map((place, i) => {
    if (place >= 0) {
      return place;
    }
    const { best: first, more } = groups[i];
    const same = [all.get(identity(first)), ...more.map((photo) => best.get(identity(photo)))];
    const free = same.find((one) => one !== undefined && !taken.has(one)) ?? -1;
    taken.add(free);
    return free;
  });
}
