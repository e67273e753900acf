// Runs before the page: leaves out the blur behind a dialog. Without a graphics card, the processor computes it anew with
// every frame.
() => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync("dialog::backdrop { backdrop-filter: none !important; }");
  document.adoptedStyleSheets.push(sheet);
}
