// Scrolls as far as the page goes now, and says what stands there.
async () => {
  scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
  return document.getElementById("more-note").textContent;
}
