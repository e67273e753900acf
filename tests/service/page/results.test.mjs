/** When the server is asked, where its groups of photos stand, and what an explanation lights up in them. */

import { deepEqual } from "node:assert/strict";
import { test } from "node:test";
import { arrange } from "../../../service/page/results/results.js";
import { createLiveSearch } from "../../../service/page/server.js";
import { outline } from "../../../service/page/why/plain.js";
import { bestMatches, heaviest } from "../../../service/page/why/views.js";

const photo = (id) => ({ id, paths: [`${id}.jpg`] });
const group = ([rank, best, ...more]) => ({ rank, best: photo(best), more: more.map(photo) });
/** The ranks of groups, each [rank, best, ...more], in their places after others, each with the place it had or -1. */
const places = (before, after, stay = true) => arrange(after.map(group), before.map(group), stay).map((one) => [one.group.rank, one.from]);

test("an older search is given up and never shown", async () => {
  const [asked, shown] = [[], []];
  const ask = (signal) => new Promise((answer, fail) => asked.push({ signal, answer, fail }));
  const search = createLiveSearch(ask, { busy: () => {}, found: (answer) => shown.push(answer), trouble: ({ message }) => shown.push(message) });
  const searches = [search.now(), search.now(), search.now()];
  asked[2].answer("third");
  asked[1].fail(new Error("second"));
  asked[0].answer("first");
  await Promise.all(searches);
  deepEqual([asked.map(({ signal }) => signal.aborted), shown], [[true, true, false], ["third"]]);
});

test("a busy server is asked again when it said", async () => {
  const shown = [];
  const answers = [Promise.reject(Object.assign(new Error("busy"), { retryAfter: 0.01 })), Promise.resolve("found")];
  await new Promise((over) => {
    const found = (answer) => over(shown.push(answer));
    void createLiveSearch(() => answers.shift(), { busy: () => {}, found, trouble: ({ message }) => shown.push(message) }).now();
  });
  deepEqual(shown, ["busy", "found"]);
});

test("groups stand in their own order if none were there before", () => deepEqual(places([], [[1, 10], [2, 20]]), [[1, -1], [2, -1]]));

test("groups stay where they were, and a new one comes into the free place", () => {
  const [before, after] = [[[1, 10], [2, 20], [3, 30]], [[1, 30], [2, 40], [3, 10]]];
  deepEqual(places(before, after), [[3, 0], [2, -1], [1, 2]]);
  deepEqual(places(before, after, false), [[1, 2], [2, -1], [3, 0]]);
});

test("a group is the same one if its best photo was or is one of the others", () => {
  deepEqual(places([[1, 10, 11], [2, 20]], [[1, 50], [2, 11, 10]]), [[2, 0], [1, -1]]);
  deepEqual(places([[1, 10], [2, 20]], [[1, 50], [2, 51, 10]]), [[2, 0], [1, -1]]);
});

test("a group that fell apart goes on as the part with its best photo", () => deepEqual(places([[1, 10, 11]], [[1, 11], [2, 10]]), [[2, 0], [1, -1]]));

test("a place that is not there any more is not kept", () => deepEqual(places([[1, 10], [2, 20], [3, 30]], [[1, 30]]), [[1, 2]]));

test("the line runs around the fewest cells with the share wanted", () => {
  const cells = (share) => [...heaviest([0.1, 0.5, 0.2, 0.0, 0.2], share)].sort();
  deepEqual([0.5, 0.6, 0.9, 1].map(cells), [[1], [1, 2], [1, 2, 4], [0, 1, 2, 4]]);
});

test("the best matches of a part are those of its tokens", () => {
  const matches = [[0, 7, 0.9], [3, 2, 0.8], [5, 7, 0.6]].map(([sketch_cell, photo_cell, cosine]) => ({ sketch_cell, photo_cell, cosine }));
  deepEqual([...bestMatches({ matches }, new Set([0, 5, 9]))], [[7, 0.9]]);
});

test("the outline of a thing goes around the outer border of its cells", () => {
  const numbers = outline([0, 1, 2, 4, 6, 8, 9, 10], 4).match(/[\d.]+/g).map(Number);
  deepEqual([Math.min(...numbers), Math.max(...numbers)], [0, 0.75]);
});
