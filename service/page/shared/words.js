/** The page's texts: names, numbers and messages for people. */

// Networks with one vector for each picture; others also compare patches.
const KINDS = /** @type {Names} */ ({ "sketch-an-anchor": "Sketch-an-Anchor, one vector for each picture", "clip-at": "CLIP-AT, one vector for each picture" });
const RET = "one vector for each whole picture, [Ret]";
const RELATION = "the relation network, which compares pictures square by square";
const METHODS = /** @type {Names} */ ({ rn: RELATION, ret: RET, fused: `${RELATION}, and ${RET}`, clip: "CLIP's vectors" });
// A build reports its progress about every second. One that has been silent for so long was killed.
const SILENCE_SECONDS = 180;
const PHASES = /** @type {Names} */ ({ reading: "reading the photos", encoding: "analysing the photos", boxes: "finding things in them", clustering: "grouping them", writing: "writing the index" });

const ASKS =
  "Each photo is read only once, and you can search the first ones within a minute. Your photos are never changed and never leave this machine.";

export const ENDS = {
  photos: { more: "Show more photos", end: "No more matching photos." },
  groups: { more: "Show more groups", end: "No more groups." },
};

/** How a method compares; `diffused`: scores were spread among photos that look alike. @type {(method: string, diffused?: boolean) => string} */
export function methodName(method, diffused = false) {
  const name = METHODS[method] ?? method;
  return diffused ? `${name}; photos that look alike share their scores` : name;
}

export const count = (/** @type {number} */ number, /** @type {string} */ noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

/** Names of things by words and colours, "" if neither is known; numbered if several have one. @type {(things: [word: string | undefined, colours: string[]][]) => string[]} */
export function thingNames(things) {
  const names = things.map(([word, colours]) => {
    // A typed word may have the colour.
    const others = colours.filter((colour) => !word?.includes(colour));
    return [others.join(" and "), word || (colours.length ? "thing" : "")].filter(Boolean).join(" ");
  });
  const counted = /** @type {Map<string, number>} */ (new Map());
  return names.map((name) => {
    counted.set(name, (counted.get(name) ?? 0) + 1);
    return name && names.indexOf(name) < names.lastIndexOf(name) ? `${name} ${counted.get(name)}` : name;
  });
}

// A guess of this probability is sure: of such guesses for drawings by mouse, 0.8 were right, of others 0.25; of fresh sketches 0.94 and 0.6.
export const SURE = 0.6;

/** What a thing was guessed to be, if sure. @type {(guess: Guess) => string | undefined} */
export const sure = (guess) => (guess?.probability >= SURE ? guess.word : undefined);

/** What was understood of a drawing, and a question. @type {(things: [name: string, known: boolean][]) => string} */
export function understood(things) {
  const each = things.map(([name, known]) => (name ? `${known ? "" : "perhaps "}${withArticle(name)}` : "something unknown"));
  const once = [...new Set(each)].map((one) => (each.indexOf(one) < each.lastIndexOf(one) ? `${one} (${each.filter((other) => other === one).length} times)` : one));
  if (`${each}` === "something unknown") { return "I do not know what this is. What is it?"; }
  return `I see ${new Intl.ListFormat("en-GB").format(once)}. What is ${things.length > 1 ? "the one marked" : "it"}?`;
}

// Words of the vocabulary, and their plurals, that end a name without an article: "perhaps green grass", but "a wine glass".
const UNCOUNTED =
  "adhesive tape|ail|applesauce|armor|asparagus|bamboo|beer|brass|bread|breakfast|broccoli|butter|cabbage|carbonara|cattle|cheese|children|c[iy]der|coffee|consomme|cordial|corn|cornbread|crabmeat|curling|dawn|detergent|dinner|dishsoap|dough|dusk|eggnog|feet|flannel|fleece|food|" +
  "formula 1|french toast|fruit|furniture|garlic|geese|gelatin|golf|grass|guacamole|hair spray|hay|honey|ho?u?mm?[ou]u?s|ice cream|jelly|lasagn[ae]|lavender|leather|lego|lemonade|lightning|liqueur|liquid|liquor|lotion|lunch|mail|mashed potato|mice|milk|okra|oxen|pantyhose|pasta|" +
  "people|perfume|piping|plaid|powder|rain|rapeseed|salami|salmon food|salsa|sand|santa claus|sauce|shaving cream|shellfish|sherber?t|skis|snow|soap|soccer|soup|sugarcane|sunscreen|tartan|tea|teeth|tennis|tequila|thatch|tinfoil|toilet tissue|toothpaste|underclothing|velvet|vinegar|" +
  "water|whipped cream|wine|winter|(?:fisher|gentle|snow|wo)?men|wool|\\w*wear|yogh?o?urt";
// The first that fits a name; without one, it is "a".
const ARTICLES = /** @type {[RegExp, string][]} */ ([
  [/^(?:eiffel tower|moon|ocean|palm of the hand|sea|sky|sun)$/i, "the "],
  [RegExp(`(?:^| )(?:${UNCOUNTED})$`, "i"), ""],
  [/^(?!(?:.* )?(?:bouvier des flandres|great pyrenees|lens|patas|rhinoceros|triceratops)$).*[^isu]s$/i, ""],
  [/^(?!euro|ufo|uni|uri)[aeiou]|^(?:hour|suv)/i, "an "],
]);

/** @type {(name: string) => string} */
const withArticle = (name) => (ARTICLES.find(([pattern]) => pattern.test(name))?.[1] ?? "a ") + name;

/** What a thing was guessed to be, in doubt with a question mark, as its label has it; "" if nothing. @type {(guess: Guess) => string} */
export const guessed = (guess) => sure(guess) ?? (guess ? `${guess.word}?` : "");

export const score = (/** @type {number} */ value) => value.toFixed(3).replace("-", "\u2212");

/** The label of the best photo of a group. @type {(group: {rank: number, size: number, best: Photo}) => {rank: number, spoken: string}} */
export function groupLabel({ rank, size, best }) {
  const among = size > 1 ? `, the best of ${count(size, "photo")} in its group` : "";
  return { rank, spoken: `${rank}: ${fileName(best.paths[0])}${among}` };
}

/** The label of a further photo of a group, or of a copy, without a rank. @type {(photo: Photo) => {rank: string, spoken: string}} */
export const photoLabel = ({ paths }) => ({ rank: "", spoken: fileName(paths[0]) });

/** The number of a photo as shown: its rank, or that of its group if groups are shown. @type {(photo: {group?: number, rank: number}) => number} */
export const numberOf = ({ group, rank }) => group ?? rank;

/** Without photos; `none`: nothing was searched for beside the drawing; `filtered`: by filters. @type {(none: boolean, filtered: boolean) => [title: string, text: string]} */
export function noPhotos(none, filtered) {
  if (none) { return ["No photos", "The index is empty. Index a folder of photos, then search again."]; }
  return filtered
    ? ["No photos match this filter", "Remove part of it above."]
    : ["No photos left", "Your exclusions removed every photo. Remove one of them above."];
}

/** The remark above the photos: how a text was read, and what no photo shows. @type {(answer: Partial<Answer>, text: string | null) => string} */
export function fitRemark({ word_means: means, word_instead: others, word_read: read, word_ignored: ignored = [], word_fits: fits, things = [] }, text) {
  const typed = text ?? read;
  const missing = fits === false ? [typed] : things.filter((one) => one.fits === false && one.word).map(({ word }) => word);
  const named = [...new Set(missing)].map((word) => `\u201c${word}\u201d`).join(" or ");
  const anywhere = text && things.length > 0 && !things.some(({ word }) => word);
  return [
    means && `${typed}: searched for ${means}.`,
    ignored.length && `Left out: ${ignored.join(", ")}.`,
    named ? `Not sure that anything here shows ${named}. These are the closest.` : anywhere && `\u201c${text}\u201d is looked for anywhere. If you drew it, name it on the drawing.`,
    others && "Or do you mean:",
  ].filter(Boolean).join(" ");
}

/** An unknown word, what is searched for without it, and what to do. @type {(word: string, rest: boolean, similar: number) => string} */
export function unknownWord(word, rest, similar) {
  const then = similar ? "Similar:" : rest ? "" : "Draw it, or name something else.";
  return `\u201c${word}\u201d is not a known word: ${rest ? "left out" : "nothing was searched for"}. ${then}`.trim();
}

/** A message about parts of the collection that did not answer. @type {(number: number, of: number) => string} */
export function missingParts(number, of) {
  const parts = of ? `${number.toLocaleString("en")} of ${count(of, "part")}` : count(number, "part");
  return `${parts} of this collection did not answer; photos there are missing.`;
}

/** A folder of a filter, or with . at its end what is in no subfolder of it. @type {(path: string) => string} */
export const folderName = (path) => (fileName(path) === "." ? `no subfolder${path === "." ? "" : ` of ${path.slice(0, -2)}`}` : path);

export const inFolders = (/** @type {string[]} */ folders) => (folders.length ? `In ${folders.map(folderName).join(" or ")}` : "");

/** The first and the last day of a year, month or day, all as in YYYY-MM-DD; none of anything else. @type {(unit: string) => string[]} */
export function ends(unit) {
  if (!/^\d{4}/.test(unit)) { return []; }
  const last = new Date(Date.UTC(Number(unit.slice(0, 4)), Number(unit.slice(5, 7)) || 12, 0)).toISOString().slice(0, 10);
  return [`${unit}-01-01`.slice(0, 10), unit.length === 10 ? unit : last];
}

const WHOLE_DAY = /** @type {Intl.DateTimeFormatOptions} */ ({ day: "numeric", month: "long", year: "numeric" });

/** 3 July 2022; or a part of it. @type {(date: string, options?: Intl.DateTimeFormatOptions) => string} */
export const day = (date, options = WHOLE_DAY) => new Date(date).toLocaleDateString("en-GB", { timeZone: "UTC", ...options });

/** The days between two, or from or until one. @type {(first?: string, last?: string) => string} */
export function period(first, last) {
  if (!first || !last) { return first ? `From ${day(first)}` : last ? `Until ${day(last)}` : ""; }
  const unit = [4, 7, 10].map((length) => first.slice(0, length)).find((one) => `${ends(one)}` === `${[first, last]}`) ?? "";
  return { 4: unit, 7: day(first, { month: "long", year: "numeric" }), 10: day(first) }[unit.length] ?? `${day(first)} to ${day(last)}`;
}

/** That the dates of files stand for the days on which photos were taken; "" if for none. @type {(undated: number, of: number) => string} */
export const undatedNote = (undated, of) =>
  undated ? `Dated by their files, not by when they were taken: ${undated === of ? "all" : `${undated.toLocaleString("en")} of ${of.toLocaleString("en")}`} photos.` : "";

export const chosenCount = (/** @type {number} */ number, /** @type {number} */ most) => `${count(number, "photo")} chosen${number === most ? ", the most at a time" : ""}`;

/** How many photos or groups are shown, `of` how many photos, in which order, or ""; and whether they are `more` beside liked ones.
 * @type {(number: number, of: number, view: string, order: string, more: boolean) => string} */
export function shownCount(number, of, view, order, more) {
  const shown = count(number, `${more && view === "photos" ? "more " : ""}${view.slice(0, -1)}`);
  const among = view === "photos" && of > number ? shown.replace(/photos?$/, `of ${more ? of.toLocaleString("en") : count(of, "photo")}`) : shown;
  return [among, order].filter(Boolean).join(", ");
}

/** A share as a percentage: a whole number, or below 1 % its first digit that is not zero. @type {(share: number) => string} */
export function percent(share) {
  const value = 100 * share;
  const shown = Math.abs(value) >= 1 || !value ? Math.round(value) : Number(value.toPrecision(1));
  // A line never ends before the sign.
  return `${shown}\u00a0%`.replace("-", "\u2212");
}

/** How well two squares match, of their cosine: in the first four photos for 54 sketches, 92 % of the strong ones were on the thing.
 * @type {(cosine: number) => string} */
export const strength = (cosine) => cosine >= 0.4 ? "strong" : cosine >= 0.25 ? "fair" : "weak";

/** What else the order of photos depends on, with or without a drawing. @type {(parts: Wanted, drawn: boolean) => string} */
export function alsoCounts({ text, like, unlike, unlike_kind: kinds }, drawn) {
  const photos = /** @type {const} */ ([[like.length - Number(!drawn), drawn ? "liked photo" : "other liked photo"], [unlike.length + kinds.length, "unwanted photo"]]);
  const all = [...text.map((word) => `\u201c${word}\u201d`), ...photos.flatMap(([number, noun]) => (number > 0 ? [count(number, noun)] : []))];
  return all.length ? ` The order also depends on ${new Intl.ListFormat("en-GB").format(all)}.` : "";
}

/** Whether a match tells little: a photo may show the thing all the same, as it mostly does if this was drawn in a hurry. `unsure`: one of several things, of which nobody knows what it is.
 * @type {(found: Found) => boolean} */
export const unclear = ({ cosine, detected, doubted, unsure }) => doubted || (detected ? detected.certainty < 0.6 : cosine < (unsure ? 0.75 : 0.5));

/** Whether nothing tells where a photo shows a thing. @type {(found: Found) => boolean} */
export const lost = ({ cosine, detected, doubted, unsure }) => !detected && (doubted || (unsure && cosine < 0.5));

export const boxed = (/** @type {DetectedBox} */ { kind, certainty }) => `${kind}, ${percent(certainty)}`;

/**
 * How well a photo shows a thing, as it was drawn. In the first six photos for 188 drawings, 0.95 of the regions that match well (0.74 for
 * several things) were on such a thing, 0.81 (0.47) of those that do partly, and 0.17 (0.15) of the others; in 600 photos, 0.94 of the
 * boxes of at least 0.6. Of 231 things with the pen's colour 0.01 are said to have another one, of those without its hue 0.82.
 * @type {(found: Found) => string}
 */
export function foundThing(thing) {
  const how = lost(thing) ? "not clear where" : unclear(thing) ? "perhaps here" : thing.detected ? "seen here" : `matches ${thing.cosine >= 0.75 ? "well" : "partly"}`;
  return `${how}${thing.detected ? ` (${boxed(thing.detected)})` : ""}${thing.colour_distance > 35 ? ", another colour" : ""}`;
}

/** What a photo seems to show, of all that was detected in it. @type {(photo: {boxes: DetectedBox[]}) => DetectedBox[]} */
export const shownThings = ({ boxes }) => boxes.filter(({ certainty }) => certainty >= 0.3);

/** What is known of a photo, as pairs of a name and a text. @type {(facts: Facts) => string[][]} */
export function photoFacts({ day: taken, time, camera, lens, width, height, bytes, changed, ...more }) {
  return [
    ["Taken", taken && [period(...ends(taken)), time].filter(Boolean).join(", ")],
    ["File changed", !taken && changed && day(changed, { ...WHOLE_DAY, timeZone: undefined })],
    ["Camera", camera],
    ["Lens", lens],
    ["Seems to show", shownThings(more).map(boxed).join("; ")],
    ["Size", `${width.toLocaleString("en")} \u00d7 ${height.toLocaleString("en")} pixels, ${size(bytes)}`],
  ].filter(([, text]) => text);
}

const size = (/** @type {number} */ bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)}\u00a0kB` : `${(bytes / 1e6).toFixed(1)}\u00a0MB`);

export const fileName = (/** @type {string} */ path) => path.slice(path.lastIndexOf("/") + 1);

export const sentence = (/** @type {string} */ reason) => reason.charAt(0).toUpperCase() + reason.slice(1);

export const took = (/** @type {Answer} */ { timings_ms: { total }, candidates, method, diffused }) =>
  `Found in ${Math.ceil(total)} ms. ${count(candidates, "photo")} ranked by ${methodName(method, diffused)}.`;

export function waitingFor(/** @type {Info} */ { searches, build }) {
  const others = searches - 1;
  if (others > 0) {
    return `The computer is busy: ${others === 1 ? "another search is running" : `${others.toLocaleString("en")} other searches are running or waiting`}.`;
  }
  return building(build) ? "The computer is busy: it is also indexing photos." : "This takes a little longer.";
}

/** Technical details, for experts: pairs of a name and a text. @type {(info: Info) => string[][]} */
export function facts({ model, index, version, refused }) {
  const programme = [
    // A checkout that is not installed has no version.
    ["Program", `sketch-search${/^\d/.test(version) ? ` ${version}` : ""}, free software under the Apache License 2.0`],
  ];
  if (!model || !index) { return programme; }
  const ownVectors = "the network's own vectors of whole pictures, [Ret]: a stand-in, not CLIP";
  return [
    ["Clusters", `${index.clusters.toLocaleString("en")}, of photos that look alike`],
    ["Clusters made by", index.embedder === "[Ret]" ? ownVectors : `${index.embedder}: ${index.embedder_description}`],
    ["Network", [model.name, KINDS[model.kind], `on ${model.device}`, `in ${model.dtype}`].filter(Boolean).join(", ")],
    ["Careful search", methodName(model.best_method, model.diffuses)],
    ["Index", `generation ${index.generation}, ${count(index.tokens, "token")} a photo`],
    ...(refused ? [["Newer index, not used", sentence(refused)]] : []),
    ...programme,
    [
      "Networks and photos",
      "Networks have their own terms. The default one was trained partly on research-only pictures: read " +
        "weights/CARD.md before you use it commercially. Photos still belong to their owners, and none leaves this server.",
    ],
  ];
}

/** The progress of a build; null: none is running. @type {(build: Build | null) => {text: string, share: number | null} | null} */
export function building(build) {
  const over = !build || build.phase === "done" || build.phase === "stopped";
  if (!build?.running && (over || Date.now() / 1000 - build.updated > SILENCE_SECONDS)) { return null; }
  const done = build.total ? `, ${build.done.toLocaleString("en")} of ${build.total.toLocaleString("en")}` : "";
  const left = build.seconds_left === null ? "" : `, ${duration(build.seconds_left)} left`;
  return {
    text: `The index is being built: ${PHASES[build.phase] ?? build.phase}${done}${left}.`,
    share: build.total ? build.done / build.total : null,
  };
}

/** What a build has made: an index of so many photos, and of the new files so many copies. @type {(photos: number, copies: number) => string} */
export const indexed = (photos, copies) => `Done: ${count(photos, "photo")} in the index.${copies > 0 ? ` Here already: ${copies.toLocaleString("en")} of the new files.` : ""}`;

/** The reason why the last build stopped early, as a sentence; null if it did not. @type {(info: Info) => string | null} */
export function stopped({ ready, build, allows }) {
  const left = ready && allows.build && build && build.phase !== "done" && !building(build);
  return left ? build.failed ?? "The last build of the index stopped before it finished." : null;
}

/** The message while nothing can be searched, for Notice.say. @type {(info: Info) => (string | number)[]} */
export function unready({ reason, remedy, build, allows }) {
  const state = building(build);
  if (state) { return ["Your photos are being read", `${state.text} You can search the first ones soon.`, state.share]; }
  if (allows.build) { return ["Where are your photos?", build?.failed ?? ASKS, undefined, "folder"]; }
  if (!remedy) { return ["Not ready yet", sentence(reason)]; }
  return ["Where are your photos?", "To choose their folder here, open the address, or the file, that the program printed when it started."];
}

export const goesOn = (/** @type {number} */ seconds) => `Your search will continue by itself in ${count(seconds, "second")}.`;

const FIELDS = /** @type {Names} */ ({ text: "The word", thing_text: "A name", folder: "The folder", after: "From", before: "Until", file: "The image" });

// A title for each kind of error, and a text if its message is not enough.
/** @type {Record<string, [title: string, text?: (error: import("./api.js").Refused) => string]>} */
const TROUBLES = {
  not_ready: ["Not ready yet"],
  queue_full: ["The server is busy"],
  rate_limited: ["Too many requests"],
  unauthorized: ["This server requires a key", () => "Enter its API key. It is kept until you close this tab."],
  not_found: ["A photo is gone", ({ message }) => `${message} It may have been deleted or removed. Remove it from the search above.`],
  blank_sketch: ["Nothing drawn yet"],
  SignedOut: ["Sign in again", () => "Your login has ended. Your drawing stays here, and your search will continue once you have signed in."],
  Away: ["Can\u2019t reach the server", () => "Is it still running? Your search will continue when it is back."],
  internal_error: ["Something went wrong", ({ message, requestId }) => `${message} Request ${requestId}.`],
};

export function trouble(/** @type {any} */ error) {
  const [title, text = (/** @type {Error} */ { message }) => message.replace(/^\w+(?= )|\b(after|before)(?=, \d)/g, (name) => FIELDS[name] ?? name)] = TROUBLES[error.code ?? error.constructor.name] ?? ["That did not work"];
  return [title, text(error).replace(/^./, (/** @type {string} */ first) => first.toUpperCase())];
}

const duration = (/** @type {number} */ seconds) =>
  seconds < 90 ? `about ${count(Math.max(1, Math.round(seconds)), "second")}` : `about ${count(Math.round(seconds / 60), "minute")}`;
