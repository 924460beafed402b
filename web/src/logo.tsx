export const Logo = () => (
  <svg className="logo" viewBox="0 0 32 32" aria-hidden="true">
    <rect width="32" height="32" rx="8" />
    <path d="M8 23v-6M13.3 23V9M18.7 23v-9M24 23V12" />
  </svg>
);
