// Times every stroke from now on. `window.lifts` gets one entry a stroke, in milliseconds: from its end until the search
// is sent, then until its answer, then until the photos in sight are shown; and what the page was to show.
async () => {
  window.lifts = [];
  document.getElementById("paper").addEventListener("pointerup", ({ timeStamp: lifted }) => {
    performance.clearResourceTimings();
    const results = document.getElementById("results");
    const look = (now) => {
      // The browser lists a request when it is over; one that began before the pen was lifted is of an older drawing.
      const search = performance
        .getEntriesByType("resource")
        .find(({ name, startTime }) => startTime >= lifted && new URL(name).pathname.endsWith("/search"));
      const seen = [...results.querySelectorAll(".frame")].filter(
        (frame) => frame.getBoundingClientRect().top < innerHeight,
      );
      const shown = seen.length && seen.every((frame) => frame.classList.contains("here"));
      // `results` stays busy until the pen rests, for the answer by all variants; the photos of the stroke come before.
      if (search && shown && !document.getElementById("found").classList.contains("busy")) {
        const { startTime: sent, responseEnd: answered } = search;
        const view = document.querySelector("#views input:checked").value;
        window.lifts.push({ view, pause_ms: sent - lifted, request_ms: answered - sent, show_ms: now - answered });
      } else {
        requestAnimationFrame(look);
      }
    };
    requestAnimationFrame(look);
  });
}
