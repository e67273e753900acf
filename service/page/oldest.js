/** Runs before the modules: adds what Firefox 115 lacks, and says so where a browser is too old for them. */

["ariaExpanded", "ariaLabel", "ariaPressed", "role"].filter(function (name) { return !(name in Element.prototype); }).forEach(function (name) {
  var attribute = name.replace("aria", "aria-").toLowerCase();
  var set = function (value) { value === null ? this.removeAttribute(attribute) : this.setAttribute(attribute, value); };
  Object.defineProperty(Element.prototype, name, { get: function () { return this.getAttribute(attribute); }, set: set });
});
try {
  RegExp("(?<=a)b");
  if (!CSS.supports("container-type", "inline-size")) { throw new Error("of 2022"); }
} catch (error) {
  document.getElementById("too-old").hidden = false;
  document.querySelector("main").hidden = true;
}
