/** What is searched with: the drawing, or an image file in its place. */

export class Query extends EventTarget {
  #paper;
  #file = null;
  #preview = "";
  #box = document.getElementById("picture");
  #image = document.getElementById("picture-image");
  #sheet = document.getElementById("sheet");

  /**
   * Takes image files that are picked, dropped or pasted. Event "change": what is searched with is another one.
   *
   * @param {import("./canvas.js").Paper} paper
   */
  constructor(paper) {
    super();
    this.#paper = paper;
    paper.addEventListener("change", () => this.#changed());
    document.getElementById("picture-remove").addEventListener("click", () => this.clear());
    // A format that the browser cannot show may still be one that the server reads: its name has to do.
    this.#image.addEventListener("error", () => (this.#image.hidden = true));
    this.#listenForFiles();
  }

  /** Whether there is nothing to search with. */
  get empty() {
    return !this.#file && this.#paper.empty;
  }

  /** Whether it is an image file. */
  get isFile() {
    return this.#file !== null;
  }

  /** Its bytes. @returns {Promise<Blob>} */
  async blob() {
    return this.#file ?? this.#paper.png();
  }

  /** Search with an image file; the drawing waits under it. */
  use(file) {
    this.#file = file;
    URL.revokeObjectURL(this.#preview);
    this.#preview = URL.createObjectURL(file);
    this.#image.hidden = false;
    this.#image.src = this.#preview;
    document.getElementById("picture-name").textContent = file.name;
    this.#changed();
  }

  /** Back to the drawing where there is an image file, else to a white sheet. */
  clear() {
    if (!this.#file) {
      this.#paper.clear();
      return;
    }
    this.#file = null;
    this.#image.removeAttribute("src");
    this.#changed();
  }

  #changed() {
    this.#box.hidden = !this.#file;
    this.dispatchEvent(new Event("change"));
  }

  #listenForFiles() {
    const input = document.getElementById("file");
    document.getElementById("pick").addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      this.#take(input.files);
      // So that picking the same file again is a change.
      input.value = "";
    });
    document.addEventListener("paste", (event) => this.#take(event.clipboardData.files));
    // Dropped beside the paper, a file would replace the page.
    document.addEventListener("dragover", (event) => {
      if (event.dataTransfer.types.includes("Files")) {
        event.preventDefault();
        this.#sheet.classList.add("dropping");
      }
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) {
        this.#sheet.classList.remove("dropping");
      }
    });
    document.addEventListener("drop", (event) => {
      if (event.dataTransfer.types.includes("Files")) {
        event.preventDefault();
        this.#sheet.classList.remove("dropping");
        this.#take(event.dataTransfer.files);
      }
    });
  }

  #take(files) {
    if (files.length) {
      this.use(files[0]);
    }
  }
}
