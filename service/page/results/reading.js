/**
 * What is asked for next, when the person scrolls to the end of the results.
 *
 * A reading has `known`, how many results it has read; `next()`, the parameters of the next page, or null at the end; and
 * `take(answer)`, which returns those results of that page that have not been there yet.
 */

/**
 * Photos, in one ranking after the other.
 *
 * The first stage of a search chooses candidates, and the second stage ranks them. With more candidates the ranking is
 * another one: photos would move to places that have been shown already, and never be seen. So one ranking is read to
 * its end. Then a ranking of twice as many candidates is read, without the photos that have been shown.
 */
export class PhotoReading {
  #sizes;
  // The photos that have been read, as results or as copies of one; and how many of them were results.
  #seen = new Set();
  #known = 0;
  // The ranking that is read now: the parameters that ask for it again, those that ask for a longer one, and how many
  // of its photos have been read.
  #same = {};
  #longer = null;
  #offset = 0;
  // How many photos of this ranking are copies of results that have been read, and how many are left.
  #folded = 0;
  #left = 0;
  #over = false;
  #asked = {};

  /** Begins with the answer that has the first results; `sizes`: how many to ask for (`page`), and how many one may. */
  constructor(answer, sizes) {
    this.#sizes = sizes;
    this.#fresh(answer);
    this.#took(answer, 0, {});
  }

  get known() {
    return this.#known;
  }

  next() {
    if (this.#over) {
      return null;
    }
    this.#asked = this.#left > 0
      ? { offset: this.#offset, k: this.#page(), ...this.#same }
      : { offset: 0, k: this.#sizes.most, ...this.#longer };
    return this.#asked;
  }

  take(answer) {
    const fresh = this.#fresh(answer);
    const longer = this.#left <= 0;
    this.#took(answer, this.#asked.offset, longer ? this.#longer : {});
    return fresh;
  }

  /** The results of an answer that have not been there yet. */
  #fresh({ results }) {
    const fresh = results.filter(({ id }) => !this.#seen.has(id));
    results.forEach(({ id, copies = [] }) => [id, ...copies].forEach((photo) => this.#seen.add(photo)));
    this.#known += fresh.length;
    return fresh;
  }

  /** How many results to ask for. More than the ranking has left would make it another ranking. */
  #page() {
    const { page, most } = this.#sizes;
    return Math.min(this.#offset < this.#known ? most : page, this.#left);
  }

  #took({ results, rerank, candidates }, offset, asked) {
    // Where fewer photos were ranked than wanted, there are no others.
    const all = candidates < (asked.rerank ?? rerank) || !results.length;
    this.#folded = results.reduce((sum, { copies = [] }) => sum + copies.length, offset ? this.#folded : 0);
    this.#offset = offset + results.length;
    this.#left = results.length ? candidates - this.#offset - this.#folded : 0;
    this.#same = rerank ? { rerank } : {};
    this.#longer = rerank ? { rerank: 2 * candidates } : null;
    this.#over = (all || !this.#longer) && this.#left <= 0;
  }
}

/** Groups of photos. All pages are cut out of one grouping, so they need no more than an offset. */
export class GroupReading {
  #page;
  #known = 0;
  #over = false;

  /** @param answer with the first groups @param {{page: number}} sizes how many groups a page has */
  constructor(answer, { page }) {
    this.#page = page;
    this.take(answer);
  }

  get known() {
    return this.#known;
  }

  next() {
    return this.#over ? null : { offset: this.#known, k: this.#page };
  }

  take({ groups }) {
    this.#known += groups.length;
    this.#over = groups.length < this.#page;
    return groups;
  }
}
