// Takes from the browser what Firefox 115, Chromium 109 or Safari 16.4 lack, before the page is read. See test_oldest_browsers.py.
(names) => {
  for (const [owner, name] of names.map((one) => one.split(/\.(?=[^.]+$)/))) {
    const found = owner.split(".").reduce((within, part) => within?.[part], window);
    if (found) { delete found[name]; }
  }
}
