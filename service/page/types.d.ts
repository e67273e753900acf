/**
 * The records that move between the page's modules, for people and for `tsc --checkJs`; no browser reads this file.
 *
 * Positions and lengths of a drawing are in sides of the square around the sheet, from its top left: they are the same on a
 * sheet of any shape, its width by its height.
 */

/** `weight`: a factor of the width of a stroke; in the outline of an area, 0 begins a ring. */
interface Point { x: number; y: number; weight?: number }

interface Box { left: number; top: number; right: number; bottom: number }

/** Left, top, width and height. */
type Place = [left: number, top: number, width: number, height: number];

type Format = "landscape" | "portrait" | "square";
type Shape = "line" | "rectangle" | "ellipse";
type Tool = "pen" | "eraser" | "fill" | "move" | Shape;
/** As what an image is searched with. */
type Kind = "sketch" | "photo";

/**
 * One thing that was done on the sheet: a free stroke by its points, a shape by its two ends, an area ("fill") by its outline;
 * an image, below all else; or a "dot" on the ink of an image.
 */
interface Mark {
  kind: "pen" | "eraser" | "fill" | Shape | "image" | "dot";
  colour?: string;
  width?: number;
  points?: Point[];
  /** Of an image: a data URL, what the browser made of it, as what it is searched with, and dots that the server found. */
  source?: string;
  image?: HTMLImageElement;
  as?: Kind;
  dots?: Mark[];
  /** Of a dot, whose points are shares of the image's sides: where it lies, and the names of the colours of its thing. */
  at?: Point;
  colours?: string[];
  /** The number of the thing that the last answer gave it to, see drawing/things.js; and whether it is in its second half. */
  thing?: number;
  second?: boolean;
  /** The number of the thing that a person said it is in, which each search tells; and what that is called. */
  told?: number;
  word?: string;
}

/**
 * A mark that is added, or `marks` in the place of all before; `format`: the one that the sheet takes, by a `turn` of the person's;
 * `step`: the step of the history that cleared more than the sheet.
 */
interface Action extends Omit<Mark, "kind"> {
  kind: Mark["kind"] | "marks";
  marks?: Mark[];
  format?: Format;
  turn?: boolean;
  step?: number;
}

/** How marks lie while a point is held. */
type Holding = (to?: Point, regular?: boolean) => (mark: Mark) => Mark;

/** The first format of a sheet, what was done on it, and what was undone. */
interface Past { first: Format; done: Action[]; undone: Action[] }

/** A query for a drawing, as a step of the history keeps it. */
interface Kept { past: Past; file?: File; fileKind?: Kind }

/** A mark as it is stored: its points are one list, each with its weight. */
interface StoredMark extends Omit<Mark, "points"> { points?: number[] }

/** A drawing as it is stored; `search`: what is searched for beside it, as the end of the page's address. */
interface Saved { format: Format; search: string; marks: Mark[] }
interface Stored { version: number; format?: Format; search?: string; marks: StoredMark[] }

/** What belongs together: marks of the sheet; or what the server saw in a picture, with names of its colours. */
interface Thing { id: number; box?: Box; marks?: Mark[]; colours?: string[] }

/** A thing with the size of its label, in pixels as its box. */
interface Labelled { marks: Mark[]; box: Box; width: number; height: number }

/** What becomes of marks if some of them are sorted by hand. */
type SortMarks = (marks: Mark[], some: Mark[]) => Mark[];

/** Change some of the marks by a function of drawing/things.js, with a word for them. */
type Sort = (by: (marks: Mark[], some: Mark[], word?: string) => Mark[], some: Mark[], word?: string) => Promise<void>;

/** What the things of a drawing tell: a switch is pressed; things are about to be divided or named. */
interface DrawnReact { changed: () => void; step: () => Promise<void> }

/** What a query tells: something else is searched with; it takes the place of what Back brings `back`; only an address came, or a text. */
interface QueryReact { changed: () => void; turn: Parts["turn"]; back: () => void; refuse: (other: string) => void }

/** What is drawn, for sorting it by hand: the things that have labels, all of them, and what changes some marks. */
interface Sortable { shown: () => Thing[]; things: () => Thing[]; sort: Sort }

/** A word that was given to a thing, and what gives it another one. */
interface Typed { name?: string; rename: (other: string) => Promise<void> }

/** What of a drawing may count or not. */
type Switch = "apart" | "places" | "colours" | "writing";

/** A stroke as the server reads it, with its mark. */
interface SentStroke {
  mark: Mark;
  sent: { points: number[][]; width: number; filled: boolean; thing?: number; word?: string };
}

/** What is searched with, at one moment. */
interface Snapshot { blob: Blob; kind: Kind; marks: Mark[]; things: Thing[]; strokes: SentStroke[] }

type PhotoPart = "like" | "unlike" | "unlike_kind";
type OtherPart = "text" | "folder" | "after" | "before";
type PartName = PhotoPart | OtherPart;
/** The parts of a query beside the drawing, each a list of values. */
type Wanted = Record<PartName, string[]>;

/** Parameters of a request; a list is repeated. */
type Asked = Record<string, string | number | boolean | readonly (string | number)[]>;

/** A question with a sketch, or none. */
type AskServer = (sketch: Blob | FormData | null, params: Asked, signal: AbortSignal) => Promise<any>;

/** One question at a time, of which the latest counts. */
type AskLatest = <Told>(
  question: (signal: AbortSignal) => Told | Promise<Told>,
  take: (answer: Told) => void,
  fail: (error: any) => void,
) => Promise<void>;

/** Names for people, by those of the server. */
type Names = Record<string, string>;

/** Of the server's answers, what the page reads; service/http/openapi.json has all of them. */
interface Photo { id: number; paths: string[]; files?: string[]; thumbnail_url: string; score?: number; raw_score?: number }
/** A photo that was found, or whose id an address names. */
interface Named { id: number | string; paths: string[] }
interface Guess { word: string; probability: number }
interface Facts {
  day: string | null;
  time: string | null;
  camera: string | null;
  lens: string | null;
  width: number;
  height: number;
  bytes: number;
  changed: string | null;
  boxes: DetectedBox[];
}
/** Where a photo shows a thing, of which in doubt nobody knows what it is. */
interface Found {
  cosine: number;
  detected?: DetectedBox;
  doubted?: boolean;
  unsure?: boolean;
  colour_distance?: number;
}
interface DetectedBox { kind: string; certainty: number }
interface AnsweredThing {
  box: [number, number, number, number];
  colours: string[];
  guess: Guess;
  guesses?: Guess[];
  word?: string;
  strokes?: number[];
  second_half?: number[];
  fits?: boolean;
}
interface Answer {
  groups?: { best: Photo }[];
  guesses: Guess[];
  perhaps?: string[];
  things?: AnsweredThing[];
  ink?: [number, number][];
  left_out?: [number, number, number, number][];
  placed?: boolean;
  region_grid?: number;
  sketch_fits?: boolean;
  word_fits?: boolean;
  word_read?: string;
  word_means?: string;
  word_instead?: string[];
  word_ignored?: string[];
  unliked?: { id: number; alike: number }[];
  hidden?: number;
  results: Photo[];
  missing_shards?: string[];
  candidates: number;
  method: string;
  diffused: boolean;
  timings_ms: { total: number };
}
interface Model {
  name: string;
  kind: string;
  device: string;
  dtype: string;
  variants: number;
  vocabulary: number;
  best_method: string;
  diffuses: boolean;
}
interface Index {
  photos: number;
  clusters: number;
  embedder: string;
  embedder_description: string;
  generation: number;
  tokens: number;
  made: string;
  text_tower: string;
}
interface Limits { max_k: number; default_k: number; max_upload_bytes: number }
interface Build {
  running: boolean;
  phase: string;
  updated: number;
  done: number;
  total: number;
  seconds_left: number;
  failed: string;
}
interface Info {
  ready: boolean;
  reason: string;
  remedy: string;
  refused: string;
  version: string;
  searches: number;
  model: Model;
  index: Index;
  limits: Limits;
  build: Build;
  allows: { build: boolean; needs_token: boolean };
}
/** A folder of the server's machine, with the names of those in it. */
interface Folder { path: string; above: string | null; folders: string[] }
interface Collection {
  folders: string[];
  updated: string;
  unread: number;
  files: { path: string; reason: string }[];
  below?: string[];
  files_below?: number[];
  days?: Record<string, number>;
  undated?: number;
}

/** What an explanation shows in one of its ways, by an answer of POST /explain. */
interface View {
  /** What can be seen, in everyday words, with a name for the drawing. */
  lead: (yours: string) => string;
  /** The same in technical terms; `alike`: where photos are compared with a photo, if these are others. */
  network: string;
  alike?: string;
  /** Whether there is something to see, if it depends: some networks match no patches. */
  fits?: (answer: any) => boolean;
  /** Draw over the sketch, or over a photo; the state has the answer, the chosen photo, pins, the hovered part, and controls. */
  sketch?: (overlay: any, state: any) => void;
  photo?: (overlay: any, state: any, photo: any) => void;
  /** A line under a photo. */
  says?: (state: any, photo: any) => { text: string; colour?: string }[];
}

/** Elements of index.html that are more than an HTMLElement. */
type Elements = Record<"paper" | "why-sketch-overlay", HTMLCanvasElement> &
  Record<"icon", HTMLTemplateElement> &
  Record<"filter" | "settings" | "why-details", HTMLDetailsElement> &
  Record<"about" | "folders" | "help" | "keep" | "viewer" | "why", HTMLDialogElement> &
  Record<"viewer-image" | "why-drawing" | "why-photo" | "why-sketch-image", HTMLImageElement> &
  Record<"building-progress" | "notice-progress", HTMLProgressElement> &
  Record<"login" | "viewer-link" | "viewer-original", HTMLAnchorElement> &
  Record<"word-form" | "filter-form", HTMLFormElement> &
  Record<"count" | "why-liked", HTMLSelectElement> &
  Record<
    | "parts-drawing" | "turn" | "undo" | "redo" | "search" | "save" | "clear" | "chosen-zip" | "chosen-list" | "viewer-previous"
    | "viewer-next",
    HTMLButtonElement
  > &
  Record<
    | "apart" | "colours" | "file" | "filter-after" | "filter-before" | "filter-folder" | "fingers" | "fold" | "folder" | "keep-name"
    | "key" | "keys-on" | "live" | "places" | "why-share" | "word" | "writing",
    HTMLInputElement
  >;

/** All elements of the page are HTML or SVG; of the latter, nobody asks for these. */
interface Element extends HTMLOrSVGElement, ElementCSSInlineStyle, Pick<HTMLElement, "offsetWidth" | "offsetHeight" | "inputMode"> {}

/** What a new element is given. */
type Properties<Kind> = Partial<{ [Name in keyof Kind]: Name extends "style" | "type" ? string : Kind[Name] }>;

type Choice = <Value extends string>(name: string, set: (value: Value) => void) => void;
type MakeElement = <Name extends keyof HTMLElementTagNameMap>(
  kind: Name,
  properties?: Properties<HTMLElementTagNameMap[Name]>,
  ...children: (Node | string)[]
) => HTMLElementTagNameMap[Name];

/** A dialog that is open; `again` tells whether Forward may open it once more. */
interface Shown { dialog: HTMLDialogElement; again: () => boolean }

type Context = CanvasRenderingContext2D;

/** A canvas of so many pixels. */
interface Sheet { context: Context; width: number; height: number }

type Paper = import("./drawing/paper.js").Paper;
type Query = ReturnType<typeof import("./drawing/query.js").createQuery>;
type Parts = ReturnType<typeof import("./asking/parts.js").createParts>;
type Word = ReturnType<typeof import("./asking/choices.js").createWord>;
type Drawn = ReturnType<typeof import("./asking/drawn.js").createDrawn>;
