/** The page's texts for people. */

import { deepEqual } from "node:assert/strict";
import { test } from "node:test";
import * as words from "../../../service/page/shared/words.js";

const said = (name, ...calls) => calls.forEach(([given, expected]) => deepEqual(words[name](...given), expected));

test("matches are as strong as was measured", () => deepEqual([0.41, 0.39, 0.24].map(words.strength), ["strong", "fair", "weak"]));

test("of several things, one that nobody knows is found only where it matches well", () =>
  said("foundThing",
    [[{ cosine: 0.8, unsure: true }], "matches well"],
    [[{ cosine: 0.6, unsure: false }], "matches partly"],
    [[{ cosine: 0.6, unsure: true }], "perhaps here"],
    [[{ cosine: 0.4, unsure: false }], "perhaps here"],
    [[{ cosine: 0.4, unsure: true }], "not clear where"],
  ));

test("a detected thing is named with its certainty, and a doubted one is not seen anywhere", () =>
  said("foundThing",
    [[{ cosine: 0, detected: { kind: "cat", certainty: 0.6 } }], "seen here (cat, 60\u00a0%)"],
    [[{ cosine: 0, detected: { kind: "cat", certainty: 0.5 } }], "perhaps here (cat, 50\u00a0%)"],
    [[{ cosine: 0.9, doubted: true }], "not clear where"],
    [[{ cosine: 0.9, colour_distance: 36 }], "matches well, another colour"],
  ));

test("photos are counted beside liked ones, which are no results", () =>
  said("shownCount",
    [[19, 700, "photos", "best first", true], "19 more of 700, best first"],
    [[1, 0, "photos", "", true], "1 more photo"],
    [[5, 700, "groups", "", true], "5 groups"],
  ));

test("a photo's day is shown as far as it is known", () => {
  const facts = { width: 9, height: 6, bytes: 900, boxes: [] };
  const taken = Object.entries({ 1965: "1965", "1965-07": "July 1965", "1965-07-04": "4 July 1965" });
  said("photoFacts", ...taken.map(([day, text]) => [[{ ...facts, day }], [["Taken", text], ["Size", "9 \u00d7 6 pixels, 1\u00a0kB"]]]));
});

test("days are named by the longest unit that they fill", () =>
  said("period",
    [["2022-01-01", "2022-12-31"], "2022"],
    [["2024-02-01", "2024-02-29"], "February 2024"],
    [["2022-07-03", "2022-07-03"], "3 July 2022"],
    [["2022-07-03", "2022-07-09"], "3 July 2022 to 9 July 2022"],
    [["2022-07-03", undefined], "From 3 July 2022"],
    [[undefined, "2022-07-03"], "Until 3 July 2022"],
    [[], ""],
  ));

test("what was understood is said, and what is not sure is asked for", () =>
  said("understood",
    [[[["bed", true], ["owl", false]]], "I see a bed and perhaps an owl. What is the one marked?"],
    [[[["scissors", false]]], "I see perhaps scissors. What is it?"],
    [[[["green grass", false], ["moon", true]]], "I see perhaps green grass and the moon. What is the one marked?"],
    [[[["", false]]], "I do not know what this is. What is it?"],
    [[[["bus", true], ["bus", true], ["", false]]], "I see a bus (2 times) and something unknown. What is the one marked?"],
  ));

test("a name has the article that it has in a sentence", () => {
  const articles = {
    "": ["snow", "red pants", "people", "snowmen", "chain mail", "Hoummos", "mashed potato", "stairs", "furniture", "matches"],
    a: ["wine glass", "bus", "zoom lens", "rhinoceros", "unicycle", "European gallinule", "water bottle", "specimen"],
    an: ["American chameleon", "hourglass", "owl", "ice skate"],
    the: ["sun", "Eiffel tower"],
  };
  const cases = Object.entries(articles).flatMap(([article, names]) => names.map((name) => [name, `${article} ${name}`.trim()]));
  said("understood", ...cases.map(([name, written]) => [[[[name, false]]], `I see perhaps ${written}. What is it?`]));
});

test("things are named with their colours, and numbered if several have one name", () =>
  said("thingNames",
    [[[["car", ["red"]], ["red car", ["red"]]]], ["red car 1", "red car 2"]],
    [[[["", ["blue"]], ["", []]]], ["blue thing", ""]],
  ));

test("a guess is sure or has a question mark", () =>
  said("guessed", [[{ word: "cow", probability: 0.6 }], "cow"], [[{ word: "cow", probability: 0.59 }], "cow?"], [[undefined], ""]));

test("how a word was read is said, and no photo is denied for a drawing", () => {
  const seen = (guess, fits, word) => ({ guess: guess && { word: guess }, fits, word });
  const denied = "Not sure that anything here shows \u201ccow\u201d. These are the closest.";
  said("fitRemark",
    [[{}, null], ""],
    [[{ sketch_fits: false, things: [seen("cow", false), seen("bus", false)] }, null], ""],
    [[{ word_fits: false }, "cow"], denied],
    [[{ things: [seen("armor", false, "cow"), seen("bus", false)] }, null], denied],
    [[{ word_read: "sea", word_means: "seashore" }, null], "sea: searched for seashore."],
    [[{ word_means: "2 \u00d7 dog", word_ignored: ["night"], word_read: "dogs" }, "two dogs at night"], "two dogs at night: searched for 2 \u00d7 dog. Left out: night."],
    [[{ things: [seen("boat", true), seen(null)] }, "cow"], "\u201ccow\u201d is looked for anywhere. If you drew it, name it on the drawing."],
    [[{ things: [seen("boat", true), seen("ox", undefined, "cow")] }, "cow"], ""],
  );
});

test("what else counts is named", () => {
  const parts = (some) => ({ text: [], like: [], unlike: [], unlike_kind: [], ...some });
  said("alsoCounts",
    [[parts({}), true], ""],
    [[parts({ like: ["4"] }), false], ""],
    [[parts({ like: ["4", "9"] }), false], " The order also depends on 1 other liked photo."],
    [[parts({ text: ["cow"], like: ["4", "9"], unlike: ["5"] }), true], " The order also depends on \u201ccow\u201d, 2 liked photos and 1 unwanted photo."],
  );
});

test("a share below one per cent has one digit that is not zero", () => {
  said("percent", [[0.126], "13\u00a0%"], [[0.00234], "0.2\u00a0%"], [[-0.5], "\u221250\u00a0%"], [[0], "0\u00a0%"]);
});
