// Runs before the page: it shows photos, as if that had been chosen, until something else is.
() => {
  try {
    localStorage["sketch-search-view"] ??= "photos";
  } catch {
    // A page that may not store anything.
  }
}
