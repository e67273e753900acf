// Whether the search has ended and every photo in sight is shown.
async () => {
  const seen = [...document.querySelectorAll("#results .frame")].filter(
    (frame) => frame.getBoundingClientRect().top < innerHeight,
  );
  return (
    document.querySelectorAll("#results li").length > 0 &&
    document.getElementById("results").getAttribute("aria-busy") === "false" &&
    seen.every((frame) => frame.classList.contains("here"))
  );
}
