// Pastes a text where the focus is, or HTML.
(text, type = "text/plain") => {
  const clipboardData = new DataTransfer();
  clipboardData.setData(type, text);
  document.activeElement.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
}
