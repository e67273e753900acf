// Waits until the search has ended and every photo in sight is shown. Photos of an older drawing are stale, even before
// the search for the newer one begins.
async () => {
  const shown = () =>
    document.querySelectorAll("#results li").length > 0 &&
    document.getElementById("results").getAttribute("aria-busy") === "false" &&
    !document.getElementById("found").classList.contains("stale") &&
    [...document.querySelectorAll("#results .frame")]
      .filter((frame) => frame.getBoundingClientRect().top < innerHeight)
      .every((frame) => frame.classList.contains("here"));
  while (!shown()) {
    await new Promise((done) => setTimeout(done, 20));
  }
}
